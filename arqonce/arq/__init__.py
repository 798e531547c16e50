"""arq from outside: its worker class, its functions and its settings, made of ours. The only room that imports arq."""
