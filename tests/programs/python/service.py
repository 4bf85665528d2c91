"""An asyncio server that adds up what it is sent, a line each; `save` has it make a checkpoint."""

import asyncio

import selfdump

total = 0


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    global total
    try:
        while line := (await reader.readline()).decode().strip():
            if line == "save":
                outcome = await selfdump.checkpoint_async()
                answer = "restored" if outcome.restored else "saved"
                print(answer, total, flush=True)
            else:
                total += int(line)
                answer = str(total)
            writer.write(f"{answer}\n".encode())
            await writer.drain()
    except OSError as error:
        print("lost a client", type(error).__name__, flush=True)
    finally:
        writer.close()


async def tick() -> None:
    """Shows that the loop goes on."""
    ticks = 0
    while True:
        ticks += 1
        print("tick", ticks, flush=True)
        await asyncio.sleep(0.02)


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await asyncio.gather(server.serve_forever(), tick())


selfdump.install()
asyncio.run(main())
