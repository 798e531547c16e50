"""The contract with producers in any language: writes it as AsyncAPI and JSON Schema, and checks compatibility."""
