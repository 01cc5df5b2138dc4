"""The audit log without indexes: writing them cost three times as much as the records.

Revision ID: 0007
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_audit_at", "audit")
    op.drop_index("ix_audit_tenant_at", "audit")


def downgrade() -> None:
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_tenant_at", "audit", ["tenant", "at"])
