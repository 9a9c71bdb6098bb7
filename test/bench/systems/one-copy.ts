/** Disks with one copy: what this machine can do, with and without the network. */
import { join } from 'node:path'
import { isListening, isListeningOn, tcpUri, unixUri } from './nbd.ts'
import { type BenchHost, makeDisk, Programs, type RunningSystem, type System } from './system.ts'

const PORT = 10_809

/** The server of a disk, on a unix socket or on the host's address. */
async function serve(
  name: string,
  host: BenchHost,
  client: BenchHost,
  bytes: number,
  words: (
    path: string,
    where: { socket: string } | { address: string; port: number }
  ) => {
    program: string
    packageName: string
    words: readonly string[]
  },
  port: number | null
): Promise<RunningSystem> {
  const programs = new Programs()
  try {
    const path = await makeDisk(host, name, bytes)
    const socket = join(host.directory, `${name}.sock`)
    const where = port === null ? { socket } : { address: host.address, port }
    const { program, packageName, words: all } = words(path, where)
    const child = await programs.start(host, program, packageName, all)
    await programs.until(`${name} serves`, () =>
      port === null ? isListening(socket) : isListeningOn(child.pid, port)
    )
    return {
      target: { kind: 'nbd', uri: port === null ? unixUri(socket) : tcpUri(host, port) },
      prefix: client.prefix,
      pids: async () => Promise.resolve(programs.pids()),
      stop: async () => programs.stop(),
    }
  } catch (error) {
    await programs.stop()
    throw error
  }
}

const nbdkit = (path: string, where: { socket: string } | { address: string; port: number }) => ({
  program: 'nbdkit',
  packageName: 'nbdkit',
  words: [
    ...['--foreground', '--newstyle', '--no-sr'],
    ...('socket' in where
      ? ['--unix', where.socket]
      : ['--ipaddr', where.address, '--port', String(where.port)]),
    ...['file', path],
  ],
})

/** Without the page cache. */
const qemuNbd = (path: string, where: { socket: string } | { address: string; port: number }) => ({
  program: 'qemu-nbd',
  packageName: 'qemu-utils',
  words: [
    ...['--persistent', '--shared', '8', '--format', 'raw', '--cache', 'none', '--aio', 'io_uring'],
    ...('socket' in where
      ? ['--socket', where.socket]
      : ['--bind', where.address, '--port', String(where.port)]),
    path,
  ],
})

const rawFile = (name: string, direct: boolean): System => ({
  name,
  title: direct ? 'raw file, O_DIRECT' : 'raw file, page cache',
  copies: 1,
  about: `fio on a file of the host, io_uring, ${direct ? 'O_DIRECT' : 'through the page cache'}`,
  start: async ({ near, bytes }) => ({
    target: { kind: 'file', path: await makeDisk(near, name, bytes), direct },
    prefix: near.prefix,
    pids: async () => Promise.resolve([]),
    stop: async () => Promise.resolve(),
  }),
})

export const ONE_COPY: readonly System[] = [
  rawFile('raw-direct', true),
  rawFile('raw-cached', false),
  {
    name: 'nbdkit',
    title: 'nbdkit, one copy here',
    copies: 1,
    about: "nbdkit's file plugin, page cache, on a unix socket of the client's host",
    start: async ({ near, bytes }) => serve('nbdkit', near, near, bytes, nbdkit, null),
  },
  {
    name: 'qemu-nbd',
    title: 'qemu-nbd, one copy here',
    copies: 1,
    about: "qemu-nbd, cache none, io_uring, on a unix socket of the client's host",
    start: async ({ near, bytes }) => serve('qemu-nbd', near, near, bytes, qemuNbd, null),
  },
  {
    name: 'nas',
    title: 'NAS: one copy there',
    copies: 1,
    about: "nbdkit's file plugin, page cache, on another host",
    start: async ({ near, far, bytes }) => serve('nas', far, near, bytes, nbdkit, PORT),
  },
  {
    name: 'nas-direct',
    title: 'NAS, direct',
    copies: 1,
    about: 'qemu-nbd, cache none, io_uring, on another host',
    start: async ({ near, far, bytes }) => serve('nas-direct', far, near, bytes, qemuNbd, PORT + 1),
  },
]
