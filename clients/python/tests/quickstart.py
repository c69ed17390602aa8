import asyncio
import os
import sys

import troupe


async def main() -> None:
    url = os.environ.get("TROUPE_SERVER", "ws://localhost:8003/ws")
    async with troupe.open(url) as session:
        build = await session.exec("for i in 1 2 3; do echo step $i; done; exit 3")
        async for piece in build.output:
            sys.stdout.buffer.write(piece.data)
        end = await build.wait()
        print(f"exit code {end.exit_code}, {end.reason}")


asyncio.run(main())
