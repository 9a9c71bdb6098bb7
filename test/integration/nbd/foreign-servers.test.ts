import { spawn } from 'node:child_process'
import { closeSync, existsSync, ftruncateSync, openSync, readFileSync, watch } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ByteLength, millis } from '../../../core/units.ts'
import { NbdClient } from '../../../datapath/replica-remote/nbd-client.ts'
import { blockDeviceContract, type ContractSubject } from '../../contract/block-device.ts'
import { CLIENT_OPTIONS } from '../../support/nbd-rig.ts'
import { hasProgram } from '../../support/run-program.ts'

/** Starts a server that listens on a socket in a directory of its own, and connects our client to it. */
async function subject(
  command: string,
  argumentsFor: (socket: string, ready: string, directory: string) => readonly string[]
): Promise<ContractSubject> {
  const directory = await mkdtemp(join(tmpdir(), 'xosan-nbd-'))
  const socket = join(directory, 'server.sock')
  // Its process id is written once it listens; the socket is there a moment before that.
  const ready = join(directory, 'ready.pid')
  const watcher = watch(directory)
  const child = spawn(command, argumentsFor(socket, ready, directory), {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const ended = new Promise<void>(resolve => child.once('close', () => resolve()))
  await new Promise<void>((resolve, reject) => {
    const look = (): void => {
      if (existsSync(ready) && readFileSync(ready).length > 0) resolve()
    }
    watcher.on('change', look)
    child.once('error', reject)
    child.once('close', () => reject(new Error(`${command} ended: ${said}`)))
    look()
  })
  watcher.close()
  const device = await NbdClient.connect(
    { ...CLIENT_OPTIONS, address: { path: socket }, exportName: '' },
    millis(10_000)
  )
  const dispose = async (): Promise<void> => {
    child.kill('SIGKILL')
    await ended
    await rm(directory, { recursive: true, force: true })
  }
  return { device, dispose }
}

/** Makes an empty file of a size. @returns its path */
function sparseFile(path: string, size: number): string {
  const file = openSync(path, 'w')
  ftruncateSync(file, size)
  closeSync(file)
  return path
}

const servers = [
  {
    program: 'nbdkit',
    name: 'NbdClient with nbdkit (memory plugin)',
    make: (size: ByteLength) =>
      subject('nbdkit', (socket, ready) => [
        '-f',
        '--exit-with-parent',
        '-U',
        socket,
        '-P',
        ready,
        'memory',
        String(size),
      ]),
  },
  {
    program: 'nbdkit',
    name: 'NbdClient with nbdkit that has only simple replies, no zeroes and no FUA',
    make: (size: ByteLength) =>
      subject('nbdkit', (socket, ready) => [
        ...[
          '-f',
          '--exit-with-parent',
          '-U',
          socket,
          '-P',
          ready,
          '--filter=nozero',
          '--no-sr',
          '--filter=fua',
        ],
        ...['memory', String(size), 'zeromode=none'],
      ]),
  },
  {
    program: 'qemu-nbd',
    name: 'NbdClient with qemu-nbd',
    make: (size: ByteLength) =>
      subject('qemu-nbd', (socket, ready, directory) => [
        ...['-k', socket, `--pid-file=${ready}`, '-f', 'raw', '--discard=unmap', '--detect-zeroes=off'],
        sparseFile(join(directory, 'disk.raw'), size),
      ]),
  },
]

for (const { program, name, make } of servers) {
  if (hasProgram(program)) blockDeviceContract(name, make)
  else describe.skip(`${name} [skipped: ${program} not installed]`, () => it('is a block device'))
}
