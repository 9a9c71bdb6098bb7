/** Tools that others wrote, each made to write, flush, read back and compare through NBD. */
import { type NbdAddress } from '../../../cli/lab/guest-disk.ts'

/** What a guest of foreign tools writes in one piece; each is full of one byte. */
export const CHUNK_BYTES = 64 * 1024

/** Pieces and the byte that fills each. */
export type Chunks = readonly (readonly [chunk: number, byte: number])[]

export interface ToolRun {
  readonly program: string
  readonly words: readonly string[]
  readonly environment?: NodeJS.ProcessEnv
  /** Whether what it said means that something was read back wrong. */
  readonly isWrong: (output: string) => boolean
}

const uriOf = ({ socket, exportName }: NbdAddress): string =>
  `nbd+unix:///${encodeURIComponent(exportName)}?socket=${socket}`

const qemuIo = (address: NbdAddress, commands: readonly string[]): ToolRun => ({
  program: 'qemu-io',
  words: ['-f', 'raw', '-t', 'writeback', ...commands.flatMap(command => ['-c', command]), uriOf(address)],
  isWrong: output => output.includes('Pattern verification failed'),
})

/** Many requests at once, then a flush; then all are read and compared. */
const NBDSH = `
import sys, json, os
size = ${CHUNK_BYTES}
job = json.loads(os.environ["JOB"])
waiting = [0]
def done(error):
    waiting[0] -= 1
    if error.value != 0:
        sys.exit("a request was answered with error %d" % error.value)
    return 1
buffers = []
for chunk, byte in job["write"]:
    buffer = nbd.Buffer.from_bytearray(bytearray([byte]) * size)
    buffers.append(buffer)
    waiting[0] += 1
    h.aio_pwrite(buffer, chunk * size, done)
    while waiting[0] >= 16:
        h.poll(-1)
while waiting[0] > 0:
    h.poll(-1)
h.flush()
for chunk, byte in job["read"]:
    found = h.pread(size, chunk * size)
    if found != bytearray([byte]) * size:
        sys.exit("WRONG: chunk %d is not %d but %d" % (chunk, byte, found[0]))
`

export const TOOLS = {
  qemuIoWrite: (address: NbdAddress, chunks: Chunks): ToolRun =>
    qemuIo(address, [
      ...chunks.map(([chunk, byte]) => `write -P ${byte} ${chunk * CHUNK_BYTES} ${CHUNK_BYTES}`),
      'flush',
    ]),
  qemuIoRead: (address: NbdAddress, chunks: Chunks): ToolRun =>
    qemuIo(
      address,
      chunks.map(([chunk, byte]) => `read -P ${byte} ${chunk * CHUNK_BYTES} ${CHUNK_BYTES}`)
    ),
  nbdsh: (address: NbdAddress, write: Chunks, read: Chunks): ToolRun => ({
    program: 'nbdsh',
    words: ['-u', uriOf(address), '-c', NBDSH],
    environment: { JOB: JSON.stringify({ write, read }) },
    isWrong: output => output.includes('WRONG'),
  }),
  nbdcopy: (address: NbdAddress, file: string): ToolRun => ({
    program: 'nbdcopy',
    words: ['--requests=16', '--connections=1', uriOf(address), file],
    isWrong: () => false,
  }),
  /** A place of its own, which it writes at random with many requests under way, reads back and checks by sums. */
  fio: (address: NbdAddress, offset: number, length: number, seed: number): ToolRun => ({
    program: 'fio',
    words: [
      '--name=soak',
      // Else its work is done by a process that a kill of fio does not reach.
      '--thread',
      '--ioengine=nbd',
      `--uri=${uriOf(address)}`,
      '--rw=randwrite',
      '--bsrange=4k-64k',
      '--iodepth=16',
      `--offset=${offset}`,
      `--size=${length}`,
      `--randseed=${seed}`,
      '--verify=crc32c',
      '--verify_fatal=1',
      '--do_verify=1',
      '--end_fsync=1',
      '--verify_state_save=0',
      '--output-format=terse',
    ],
    isWrong: output => /verify: bad|verify failed|bad header|bad magic/i.test(output),
  }),
} as const

/** Programs that a guest of foreign tools needs, and the packages that have them. */
export const FOREIGN_PROGRAMS = {
  'qemu-io': 'qemu-utils',
  nbdsh: 'python3-libnbd',
  nbdcopy: 'libnbd-bin',
  fio: 'fio',
} as const
