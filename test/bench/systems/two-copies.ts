/** Disks with two copies on two hosts, made of what Debian has: QEMU's mirror job and its quorum. */
import { join } from 'node:path'
import { isListening, isListeningOn, unixUri } from './nbd.ts'
import { Qmp } from './qmp.ts'
import { type BenchPlace, makeDisk, Programs, type RunningSystem, type System } from './system.ts'

type Way = 'mirror' | 'quorum'

/** @param direct without page caches */
async function start(
  { near, far, bytes }: BenchPlace,
  name: string,
  way: Way,
  direct: boolean,
  port: number
): Promise<RunningSystem> {
  const programs = new Programs()
  try {
    const [here, there] = [await makeDisk(near, name, bytes), await makeDisk(far, name, bytes)]
    const remote = await programs.start(far, 'qemu-nbd', 'qemu-utils', [
      ...['--persistent', '--shared', '8', '--format', 'raw', '--bind', far.address, '--port', String(port)],
      ...(direct ? ['--cache', 'none', '--aio', 'io_uring'] : ['--cache', 'writeback']),
      there,
    ])
    await programs.until(`${name}'s copy on the other host`, () => isListeningOn(remote.pid, port))
    const [socket, monitor] = [join(near.directory, `${name}.sock`), join(near.directory, `${name}.qmp`)]
    const local = {
      driver: 'file',
      'node-name': 'here',
      filename: here,
      cache: { direct },
      aio: direct ? 'io_uring' : 'threads',
    }
    const other = {
      driver: 'nbd',
      'node-name': 'there',
      server: { type: 'inet', host: far.address, port: String(port) },
    }
    const both = {
      ...{ driver: 'quorum', 'node-name': 'both', 'vote-threshold': 1, 'read-pattern': 'fifo' },
      children: ['here', 'there'],
    }
    await programs.start(near, 'qemu-storage-daemon', 'qemu-system-common', [
      ...['--blockdev', JSON.stringify(local), '--blockdev', JSON.stringify(other)],
      ...(way === 'quorum' ? ['--blockdev', JSON.stringify(both)] : []),
      ...['--nbd-server', `addr.type=unix,addr.path=${socket},max-connections=8`],
      ...[
        '--export',
        `type=nbd,id=disk,node-name=${way === 'quorum' ? 'both' : 'here'},name=disk,writable=on`,
      ],
      ...[
        '--chardev',
        `socket,id=monitor,path=${monitor},server=on,wait=off`,
        '--monitor',
        'chardev=monitor',
      ],
    ])
    await programs.until(`${name} serves`, async () => (await isListening(socket)) && isListening(monitor))
    if (way === 'mirror') await mirror(monitor)
    return {
      target: { kind: 'nbd', uri: unixUri(socket, 'disk') },
      prefix: near.prefix,
      pids: async () => Promise.resolve(programs.pids()),
      stop: async () => programs.stop(),
    }
  } catch (error) {
    await programs.stop()
    throw error
  }
}

/** Each write goes to both copies before it is answered, from the moment at which both are alike. */
async function mirror(monitor: string): Promise<void> {
  const qmp = await Qmp.open(monitor)
  try {
    await qmp.execute('blockdev-mirror', {
      ...{ 'job-id': 'mirror', device: 'here', target: 'there', sync: 'full' },
      'copy-mode': 'write-blocking',
    })
    await qmp.event('BLOCK_JOB_READY')
  } finally {
    qmp.close()
  }
}

const PORT = 10_820

const system = (way: Way, direct: boolean, port: number): System => {
  const cache = direct ? 'direct' : 'page cache'
  const name = `qemu-${way}${direct ? '' : '-cached'}`
  const how = way === 'mirror' ? 'mirror job, write-blocking' : 'quorum of both, reads from the first'
  return {
    name,
    title: `QEMU ${way}, ${cache}`,
    copies: 2,
    about: `qemu-storage-daemon with a ${how}, to qemu-nbd on another host, ${cache}`,
    start: async place => start(place, name, way, direct, port),
  }
}

export const TWO_COPIES: readonly System[] = [
  system('mirror', true, PORT),
  system('quorum', true, PORT + 1),
  system('quorum', false, PORT + 2),
]
