"""The contract with producers in any language: written as AsyncAPI and JSON Schema, and compared with an older one."""
