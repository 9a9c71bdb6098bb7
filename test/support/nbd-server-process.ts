/**
 * A server in a process of its own, so that its memory can be looked at from outside. It has two disks, each on a socket
 * of its own, whose paths it prints; answers each line on stdin with a line of figures; ends with its stdin.
 *
 *     node --expose-gc --import tsx test/support/nbd-server-process.ts SIZE-IN-BYTES HANDSHAKE-MS
 */
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { byteOffset, millis } from '../../core/units.ts'
import { MemoryDevice } from './memory-device.ts'
import { NbdRig } from './nbd-rig.ts'

/** The first line that it prints. */
export interface ServerPaths {
  readonly first: string
  readonly second: string
}

/** What the process tells on request. */
export interface ServerFigures {
  readonly residentBytes: number
  readonly connections: number
  readonly bytesInFlight: number
  /** Connections that have ended, by the reason's code. */
  readonly ends: Readonly<Record<string, number>>
  /** Entries of the log that are no ends. */
  readonly others: number
}

/** A disk whose blocks all take space from the start, so that later growth is the server's own. */
async function filledDevice(size: number): Promise<MemoryDevice> {
  const device = new MemoryDevice(size)
  await device.write({ offset: byteOffset(0), data: new Uint8Array(size), durable: false })
  return device
}

async function main(): Promise<void> {
  const [size, handshakeMs] = process.argv.slice(2).map(Number)
  const rig = await NbdRig.start({
    device: await filledDevice(size!),
    limits: { handshakeMs: millis(handshakeMs!), lingerMs: millis(200) },
  })
  const second = await filledDevice(size!)
  const path = join(rig.directory, 'second.sock')
  await rig.server.listenUnix(path, {
    open: async () => ({ device: second, readOnly: false, durability: 'always', closed: () => undefined }),
    info: async () => ({ size: second.size, readOnly: false, capabilities: second.capabilities }),
    list: async () => [],
  })
  const paths: ServerPaths = { first: rig.path, second: path }
  console.log(JSON.stringify(paths))
  const ends: Record<string, number> = {}
  let others = 0
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === '') continue
    for (const event of rig.events.splice(0)) {
      if (event.kind === 'closed') ends[event.reason.code] = (ends[event.reason.code] ?? 0) + 1
      else others++
    }
    globalThis.gc?.()
    const figures: ServerFigures = {
      residentBytes: process.memoryUsage.rss(),
      connections: rig.server.connections,
      bytesInFlight: rig.server.bytesInFlight,
      ends,
      others,
    }
    console.log(JSON.stringify(figures))
  }
  await rig.stop()
}

await main()
