"""
TANGO in Python: `member` makes a task or a program a member container. Its manager is switched on in ``[dialects.tango]``.

Source: the TANGO REST guide; see docs/tango.md.
"""

from __future__ import annotations

from orchestra.dialects.tango_calls import Replies
from orchestra.dialects.tango_member import Member, member

__all__ = ["Member", "Replies", "member"]
