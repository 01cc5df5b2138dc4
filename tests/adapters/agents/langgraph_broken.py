"""It does not import."""

# mypy: ignore-errors
# pyright: basic, reportMissingImports=false

import no_such_module_at_all

print(no_such_module_at_all)
