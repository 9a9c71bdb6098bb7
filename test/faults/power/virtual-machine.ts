/** A virtual machine under software emulation, which needs neither root nor anything of the processor. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { findProgram } from '../../../cli/lab/find-program.ts'
import { byteLength } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { XosanError } from '../../../core/errors.ts'
import { NbdServer } from '../../../datapath/nbd-server/nbd-server.ts'
import { type OpenedExport } from '../../../datapath/nbd-server/export.ts'
import { type ForeignSystem } from './foreign-system.ts'
import { Lines, type Notice, type Order, noticeSchema } from './guest-link.ts'
import { type VolatileDisk } from './volatile-disk.ts'

const MEMORY_MIB = 768
const PROCESSORS = 2

export interface MachineLane {
  readonly name: string
  readonly disk: VolatileDisk
  /** Path of its module in the guest. */
  readonly module: string
  readonly barrier: boolean
}

export interface MachineOptions {
  readonly system: ForeignSystem
  /** Initial RAM file system. */
  readonly image: string
  /** For its socket and its console's log. */
  readonly directory: string
  readonly lanes: readonly MachineLane[]
  /** What the guest tells, at once when it is read. */
  readonly told: (notice: Notice) => void
  /** It has ended without having been told to, or has told what cannot be understood. */
  readonly died: (error: unknown) => void
}

/** So that none is left when the program is told to end. */
const running = new Set<VirtualMachine>()

export const endMachines = async (): Promise<void> => {
  await Promise.all([...running].map(machine => machine.cutPower()))
}

export class VirtualMachine {
  readonly #child: ChildProcessWithoutNullStreams
  readonly #server: NbdServer
  #cut = false

  private constructor(child: ChildProcessWithoutNullStreams, server: NbdServer, options: MachineOptions) {
    this.#child = child
    this.#server = server
    running.add(this)
    const lines = new Lines()
    let complaints = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (complaints += text))
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      try {
        for (const line of lines.take(text)) options.told(noticeSchema.parse(JSON.parse(line)))
      } catch (error) {
        options.died(error)
      }
    })
    child.stdin.on('error', () => undefined)
    child.on('close', (code, signal) => {
      running.delete(this)
      if (!this.#cut)
        options.died(new Error(`qemu ended with ${String(code ?? signal)}: ${complaints.trim()}`))
    })
  }

  static async start(options: MachineOptions): Promise<VirtualMachine> {
    const socket = join(options.directory, 'disks.sock')
    const server = await serveDisks(socket, options.lanes)
    const child = spawn(findProgram('qemu-system-x86_64')!, machineArguments(options, socket))
    return new VirtualMachine(child, server, options)
  }

  order(order: Order): void {
    this.#child.stdin.write(`${JSON.stringify(order)}\n`)
  }

  /** Whoever calls this has cut the power of the disks just before. */
  async cutPower(): Promise<void> {
    this.#cut = true
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const closed = once(this.#child, 'close')
      this.#child.kill('SIGKILL')
      await closed
    }
    await this.#server.close()
  }
}

async function serveDisks(socket: string, lanes: readonly MachineLane[]): Promise<NbdServer> {
  const diskOf = (name: string): VolatileDisk => {
    const lane = lanes.find(one => one.name === name)
    if (lane === undefined) throw new XosanError('EXPORT_UNKNOWN', { name })
    return lane.disk
  }
  const server = new NbdServer({
    clock: createNodeClock(),
    log: () => undefined,
    exports: {
      // As asked: nothing is made durable but what the guest flushes.
      open: async ({ name }): Promise<OpenedExport> => ({
        device: diskOf(name),
        readOnly: false,
        durability: 'as-asked',
        closed: () => undefined,
      }),
      info: async name => {
        const { size, capabilities } = diskOf(name)
        return { size: byteLength(size), readOnly: false, capabilities }
      },
      list: async () => lanes.map(({ name }) => name),
    },
  })
  await server.listenUnix(socket)
  return server
}

function machineArguments({ system, image, directory, lanes }: MachineOptions, socket: string): string[] {
  const withoutBarrier = lanes.filter(({ barrier }) => !barrier).map(({ name }) => `${name},`)
  const kernel = [
    // On a busy machine the emulated timer may seem to stand still, and the kernel would panic.
    'no_timer_check',
    ...['console=ttyS0', 'quiet', 'loglevel=4', 'panic=-1', 'mitigations=off', 'random.trust_cpu=on'],
    `lanes=${lanes.map(({ name, module }) => `${name}=${module}`).join(',')}`,
    `nobarrier=${withoutBarrier.join('')}`,
  ]
  const disks = lanes.flatMap(({ name }, index) => [
    '-blockdev',
    `driver=nbd,node-name=lane${index},server.type=unix,server.path=${socket},export=${name}`,
    '-device',
    `virtio-blk-pci,drive=lane${index},serial=${name},write-cache=on`,
  ])
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', String(PROCESSORS), '-m', String(MEMORY_MIB)],
    ...['-kernel', system.kernel, '-initrd', image, '-append', kernel.join(' ')],
    ...['-serial', `file:${join(directory, 'console.log')}`],
    ...['-chardev', 'stdio,id=link,signal=off', '-device', 'virtio-serial-pci'],
    ...['-device', 'virtserialport,chardev=link,name=xosan'],
    '-blockdev',
    `driver=raw,node-name=system,read-only=on,file.driver=file,file.filename=${system.image}`,
    ...['-device', 'virtio-blk-pci,drive=system,serial=system'],
    ...disks,
  ]
}
