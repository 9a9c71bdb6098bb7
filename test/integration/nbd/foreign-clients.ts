import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import VatesNbdClient from '@vates/nbd-client'
import { hasProgram, runProgram, succeed } from '../../support/run-program.ts'
import { type NbdRig } from '../../support/nbd-rig.ts'
import { TapdiskClient } from '../../support/tapdisk-client.ts'

export interface ForeignClient {
  readonly name: string
  /** What it shows here. */
  readonly shows: string
  /** Why it cannot run on this machine; null when it can. */
  missing(): string | null
  /** Uses the server, whose disk of 64 MiB holds zeros. @returns the client's own output. Throws with it on failure */
  run(rig: NbdRig): Promise<string>
}

const MIB = 1024 * 1024

const needs =
  (...programs: string[]) =>
  (): string | null => {
    const absent = programs.filter(program => !hasProgram(program))
    return absent.length === 0 ? null : `${absent.join(', ')} not installed`
  }

/** Bytes of a file system's kind: runs of zeros between data that do not repeat. */
function image(): Buffer {
  const bytes = Buffer.alloc(16 * MIB)
  for (let at = 0; at < bytes.length; at += 256 * 1024) {
    for (let index = 0; index < 90_000; index += 4)
      bytes.writeUInt32BE((at + index * 2_654_435_761) >>> 0, at + index)
  }
  return bytes
}

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** Ends a process of ours that may have ended by itself. */
function endProcess(pid: number): void {
  try {
    process.kill(pid)
  } catch {
    // It has.
  }
}

const qemuImg: ForeignClient = {
  name: 'qemu-img',
  shows: 'convert to and from, compare, map, info',
  missing: needs('qemu-img'),
  async run(rig) {
    const source = join(rig.directory, 'source.raw')
    const target = join(rig.directory, 'target.raw')
    await writeFile(source, Buffer.concat([image(), Buffer.alloc(48 * MIB)]))
    const img = (...args: string[]): Promise<string> => succeed('qemu-img', args)
    const outputs = [
      await img('convert', '-n', '-p', '-W', '-f', 'raw', '-O', 'raw', source, rig.uri),
      await img('compare', '-f', 'raw', '-F', 'raw', source, rig.uri),
      await img('convert', '-f', 'raw', '-O', 'raw', rig.uri, target),
      await img('info', rig.uri),
      await img('map', '-f', 'raw', rig.uri),
    ]
    assert.equal(digest(await readFile(target)), digest(await readFile(source)), outputs.join(''))
    return outputs.join('').replace(/.*\r/g, '')
  },
}

const qemuIo: ForeignClient = {
  name: 'qemu-io',
  shows:
    'patterns, FUA, write zeroes with and without unmap, discard, flush, odd offsets, many requests in flight',
  missing: needs('qemu-io'),
  async run(rig) {
    const commands = [
      'write -P 0x11 0 1M',
      'write -f -P 0x22 4097 513',
      'write -z 64k 64k',
      'write -z -u 192k 64k',
      'discard 256k 64k',
      'aio_write -P 0x33 2M 2M',
      'aio_write -P 0x44 8M 2M',
      'aio_write -P 0x55 16M 8M',
      'aio_flush',
      'flush',
      'read -P 0x11 0 4097',
      'read -P 0x22 4097 513',
      'read -P 0x11 4610 60926',
      'read -P 0 64k 64k',
      'read -P 0 192k 128k',
      'read -P 0x33 2M 2M',
      'read -P 0x44 8M 2M',
      'read -P 0x55 16M 8M',
      'write -P 0x66 64M-1 1'.replace('64M-1', String(64 * MIB - 1)),
      `read -P 0x66 ${64 * MIB - 1} 1`,
    ]
    const args = ['-f', 'raw', '-d', 'unmap', ...commands.flatMap(command => ['-c', command]), rig.uri]
    const output = await succeed('qemu-io', args)
    assert.doesNotMatch(output, /failed|error/i, output)
    return output
  },
}

const qemuNbd: ForeignClient = {
  name: 'qemu-nbd',
  shows: 'serves our export on under its own socket, and qemu-io writes through it',
  missing: needs('qemu-nbd', 'qemu-io'),
  async run(rig) {
    const socket = join(rig.directory, 'again.sock')
    const pidFile = join(rig.directory, 'qemu-nbd.pid')
    // --fork returns once it listens; without --persistent it ends with its only client.
    const args = ['--fork', `--pid-file=${pidFile}`, '-f', 'raw', '-k', socket, rig.uri]
    const started = await succeed('qemu-nbd', args)
    const pid = Number(await readFile(pidFile, 'utf8'))
    const commands = ['-c', 'write -P 7 1M 3M', '-c', 'flush', '-c', 'read -P 7 1M 3M']
    const used = await succeed('qemu-io', [
      '-f',
      'raw',
      ...commands,
      `nbd+unix:///?socket=${socket}`,
    ]).finally(() => endProcess(pid))
    const read = await succeed('qemu-io', ['-f', 'raw', '-r', '-c', 'read -P 7 1M 3M', rig.uri])
    assert.doesNotMatch(read, /failed/, read)
    return started + used + read
  },
}

const nbdinfo: ForeignClient = {
  name: 'nbdinfo (libnbd)',
  shows: 'GO, INFO, LIST, contexts, block sizes; agrees that the export can do everything',
  missing: needs('nbdinfo'),
  async run(rig) {
    const plain = await succeed('nbdinfo', [rig.uri])
    for (const ability of ['cache', 'df', 'fast_zero', 'flush', 'fua', 'multi_conn', 'trim', 'zero']) {
      assert.match(plain, new RegExp(`can_${ability}: true`), plain)
    }
    assert.match(plain, /block_size_maximum: 33554432/, plain)
    const map = await succeed('nbdinfo', ['--map', rig.uri])
    assert.match(map, /^\s*0\s+67108864\s+3\s+hole,zero\s*$/, map)
    const list = await succeed('nbdinfo', ['--list', `nbd+unix:///?socket=${rig.path}`])
    assert.match(list, /export="volume"/, list)
    return plain + map + list
  },
}

const nbdcopy: ForeignClient = {
  name: 'nbdcopy (libnbd)',
  shows: 'copies in over four connections and out again, with holes',
  missing: needs('nbdcopy'),
  async run(rig) {
    const source = join(rig.directory, 'source.raw')
    const target = join(rig.directory, 'target.raw')
    await writeFile(source, Buffer.concat([image(), Buffer.alloc(48 * MIB)]))
    await writeFile(target, '')
    const output =
      (await succeed('nbdcopy', ['--flush', '--connections=4', '--requests=64', source, rig.uri])) +
      (await succeed('nbdcopy', ['--connections=4', rig.uri, target]))
    const [wanted, got] = [digest(await readFile(source)), digest(await readFile(target))]
    assert.equal(got, wanted, output)
    return `${output}sha256 in ${wanted}\nsha256 out ${got}\n`
  },
}

const NBDSH = `
import errno, os
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.set_strict_mode(0)
h.connect_uri(os.environ["URI"])
print("structured replies", h.get_structured_replies_negotiated(), "size", h.get_size())
h.pwrite(b"x" * 70000, 12345, nbd.CMD_FLAG_FUA)
assert h.pread(70000, 12345, nbd.CMD_FLAG_DF) == b"x" * 70000
h.zero(4096, 16384, nbd.CMD_FLAG_NO_HOLE)
h.zero(4096, 20480, nbd.CMD_FLAG_FAST_ZERO)
h.trim(4096, 24576)
h.cache(65536, 0)
h.flush()
seen = []
h.block_status(65536, 0, lambda context, offset, entries, error: seen.append((context, entries)))
print("status", seen)
assert sum(seen[0][1][0::2]) == 65536
def refused(what, call, number):
    try:
        call()
    except nbd.Error as error:
        print(what, "->", error.errno, error.string)
        assert error.errnum == number, error.errnum
    else:
        raise AssertionError(what + " was not refused")
refused("read beyond the end", lambda: h.pread(2, h.get_size() - 1), errno.EINVAL)
refused("write beyond the end", lambda: h.pwrite(b"zz", h.get_size() - 1), errno.ENOSPC)
refused("unknown flag", lambda: h.trim(1, 0, nbd.CMD_FLAG_DF), errno.EINVAL)
buffers = []
for i in range(64):
    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i]) * 4096), 1048576 + i * 4096, lambda error: 1)
while h.aio_in_flight() > 0:
    h.poll(-1)
for i in range(64):
    assert h.pread(4096, 1048576 + i * 4096) == bytes([i]) * 4096
big = bytes(range(256)) * 131072
h.pwrite(big, 4096)
assert h.pread(len(big), 4096) == big
print("32 MiB there and back")
h.shutdown()
`

/** nbdsh is `python3 -m nbd`; the first Python of the path may be one without Debian's modules. */
const PYTHONS = ['python3', '/usr/bin/python3'] as const

const nbdsh: ForeignClient = {
  name: 'nbdsh (libnbd)',
  shows:
    'DF, FUA, NO_HOLE, FAST_ZERO, CACHE, BLOCK_STATUS, errors that leave the session usable, 64 in flight, 32 MiB',
  missing: () =>
    existsSync('/usr/lib/python3/dist-packages/nbd.py') ? needs('python3')() : 'python3-libnbd not installed',
  async run(rig) {
    const input = `import os\nos.environ["URI"] = ${JSON.stringify(rig.uri)}\n${NBDSH}`
    const [first, debian] = PYTHONS
    const { code } = await runProgram(first, ['-c', 'import nbd'])
    return succeed(code === 0 ? first : debian, ['-m', 'nbd', '-c', '-'], { input })
  },
}

const NBDFUSE = `
set -e
trap 'umount "$1" 2>/dev/null || true' EXIT
mkdir "$1"
nbdfuse --pidfile "$1.pid" "$1" "$2" &
for wait in $(seq 200); do test -s "$1.pid" && break; sleep 0.05; done
dd if=/dev/urandom of="$1.data" bs=1M count=8 status=none
dd if="$1.data" of="$1/nbd" bs=256k seek=3 conv=notrunc,fsync
cmp -n 8388608 "$1.data" "$1/nbd" 0 786432
umount "$1"
wait
echo "8 MiB written and compared through the mounted file"
`

const nbdfuse: ForeignClient = {
  name: 'nbdfuse (libnbd)',
  shows: 'the export as a file: written, fsynced, compared',
  missing() {
    if (process.getuid?.() !== 0) return 'mounting needs root'
    return needs('nbdfuse', 'cmp', 'umount')() ?? (existsSync('/dev/fuse') ? null : 'there is no /dev/fuse')
  },
  run: rig => succeed('sh', ['-c', NBDFUSE, 'nbdfuse', join(rig.directory, 'mount'), rig.uri]),
}

const nbdkit: ForeignClient = {
  name: 'nbdkit (nbd plugin)',
  shows: 'four shared connections to our export; nbdcopy writes and reads through it',
  missing: needs('nbdkit', 'nbdcopy'),
  async run(rig) {
    const source = join(rig.directory, 'source.raw')
    const target = join(rig.directory, 'target.raw')
    await writeFile(source, Buffer.concat([image(), Buffer.alloc(48 * MIB)]))
    await writeFile(target, '')
    const script = `set -e; nbdcopy --flush ${source} "$uri"; nbdcopy "$uri" ${target}; nbdinfo --size "$uri"`
    const output = await succeed('nbdkit', ['-U', '-', 'nbd', `uri=${rig.uri}`, '--run', script])
    assert.equal(digest(await readFile(target)), digest(await readFile(source)), output)
    return output
  },
}

const fio: ForeignClient = {
  name: 'fio --ioengine=nbd',
  shows: 'random writes and reads of 512 B to 256 KiB at depth 32, each checked by CRC',
  missing() {
    return needs('fio')()
  },
  async run(rig) {
    const { output: engines } = await runProgram('fio', ['--enghelp'])
    if (!/^\s*nbd\s*$/m.test(engines)) throw new Error(`this fio has no nbd engine:\n${engines}`)
    const args = [
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${rig.uri}`,
      '--rw=randwrite',
      '--bsrange=512-256k',
    ]
    const checks = [
      '--iodepth=32',
      '--size=48m',
      '--verify=crc32c',
      '--do_verify=1',
      '--verify_fatal=1',
      '--fsync=64',
    ]
    const output = await succeed('fio', [...args, ...checks, '--output-format=normal'], {
      cwd: rig.directory,
    })
    assert.match(output, /err= 0/, output)
    return output
  },
}

const nbdClient: ForeignClient = {
  name: 'nbd-client (kernel tools)',
  shows: 'lists the exports; attaching one needs the nbd kernel module',
  missing: needs('nbd-client'),
  async run(rig) {
    const output = await succeed('nbd-client', ['-l', '127.0.0.1', String(rig.port)])
    assert.match(output, /^volume$/m, output)
    return output
  },
}

const nbdTester: ForeignClient = {
  name: 'nbd-tester-client',
  shows: 'EXPORT_NAME and a content check over recorded requests',
  missing: needs('nbd-tester-client'),
  run: rig => succeed('nbd-tester-client', ['-N', 'volume', '-i', '-u', rig.path]),
}

const vates: ForeignClient = {
  name: '@vates/nbd-client (Xen Orchestra)',
  shows: 'EXPORT_NAME with the 124 zeros; blocks of 2 MiB, several at once, as in a backup',
  missing: () => null,
  async run(rig) {
    const bytes = image()
    const writer = await rig.connect()
    await writer.write({ offset: 0 as never, data: bytes, durable: false })
    await writer.close()
    const client = new VatesNbdClient({ address: '127.0.0.1', port: rig.port, exportname: 'volume' })
    await client.connect()
    const size = 2 * MIB
    const blocks = await Promise.all(Array.from({ length: 8 }, (_, index) => client.readBlock(index, size)))
    await client.disconnect()
    const [wanted, got] = [digest(bytes), digest(Buffer.concat(blocks))]
    assert.equal(got, wanted)
    return `size ${client.exportSize}\n${blocks.length} blocks of ${size} bytes\nsha256 ${got}, as written\n`
  },
}

const tapdisk: ForeignClient = {
  name: 'tapdisk (a test client that does what block-nbd does)',
  shows:
    'EXPORT_NAME with a NUL in the name, simple replies, 352 in flight, 512 B to 2 MiB, each byte compared',
  missing: () => null,
  async run(rig) {
    const client = await TapdiskClient.connect(rig.path, rig.device.size)
    const { reads, writes, bytes, deepest } = await client.load(4000)
    client.close()
    assert.ok(deepest > 300, `only ${deepest} requests were in flight at once`)
    const volume = `${Math.round(bytes / MIB)} MiB`
    return `${reads} reads and ${writes} writes, ${volume}, up to ${deepest} in flight, no error, no difference\n`
  },
}

/** Every client that must be able to use the server. */
export const FOREIGN_CLIENTS: readonly ForeignClient[] = [
  tapdisk,
  qemuImg,
  qemuIo,
  qemuNbd,
  nbdinfo,
  nbdcopy,
  nbdsh,
  nbdfuse,
  nbdkit,
  fio,
  nbdClient,
  nbdTester,
  vates,
]
