"""A connection to PostgreSQL that is cut after the server has committed and before it says so."""

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker


def losing_the_reply(sessions: async_sessionmaker[AsyncSession]) -> async_sessionmaker[AsyncSession]:
    """Return a sessionmaker to the same server that loses the reply to its first commit."""
    is_cut = True

    class LosesTheReply(AsyncSession):
        async def commit(self) -> None:
            nonlocal is_cut
            await super().commit()
            if is_cut:
                is_cut = False
                raise ConnectionResetError

    losing: async_sessionmaker[AsyncSession] = async_sessionmaker(
        sessions.kw["bind"], class_=LosesTheReply, expire_on_commit=False
    )
    return losing
