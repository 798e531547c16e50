"""Takes assertions on log lines out of tests: ours are others than arq's, and carry no arguments."""

import ast

_LOG = "caplog"


class _WithoutLogs(ast.NodeTransformer):
    """Removes assertions on what was logged, from one function."""

    def __init__(self) -> None:
        self._names = {_LOG}

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """Remember names that hold log lines."""
        if self._is_log(node.value):
            self._names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """Replace the assertion."""
        return ast.copy_location(ast.Pass(), node) if self._is_log(node.test) else node

    def _is_log(self, node: ast.AST) -> bool:
        return any(isinstance(part, ast.Name) and part.id in self._names for part in ast.walk(node))


def without_log_assertions(source: str) -> str:
    """Return the module's source without assertions on log lines."""
    tree = ast.parse(source)
    for at, node in enumerate(tree.body):
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
            tree.body[at] = _WithoutLogs().visit(node)
    return ast.unparse(ast.fix_missing_locations(tree))
