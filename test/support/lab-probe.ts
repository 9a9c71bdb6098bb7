import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { type Readable, type Writable } from 'node:stream'
import { labCommand } from '../../cli/lab/lab-links.ts'
// Only the types: the program would run.
import type { ProbeCommand, ProbeEvent } from './net-probe.ts'

/** How long to wait for what should come, in milliseconds: TCP repeats what was lost after up to some seconds. */
const PATIENCE_MS = 15_000

/** A probe program that runs in the network of a lab host; what it received is kept in order. */
export class LabProbe {
  readonly address: string
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #events: ProbeEvent[] = []
  readonly #waiting = new Set<() => void>()

  private constructor(address: string, child: ChildProcessByStdio<Writable, Readable, null>) {
    this.address = address
    this.#child = child
    createInterface({ input: child.stdout }).on('line', line => {
      this.#events.push(JSON.parse(line) as ProbeEvent)
      for (const look of this.#waiting) look()
    })
    // It may be killed with its host.
    child.stdin.on('error', () => undefined)
  }

  /** @param program the bundled `net-probe.ts` */
  static async start(
    directory: string,
    { name, address }: { readonly name: string; readonly address: string },
    program: string
  ): Promise<LabProbe> {
    const [command, ...words] = await labCommand(directory, name, [process.execPath, program, address])
    const child = spawn(command!, words, { stdio: ['pipe', 'pipe', 'inherit'] })
    const probe = new LabProbe(address, child)
    await probe.wait('to be ready', ({ kind }) => kind === 'ready')
    return probe
  }

  do(command: ProbeCommand): void {
    this.#child.stdin.write(`${JSON.stringify(command)}\n`)
  }

  /** The first event of that kind, which may have come already. @throws Error when it does not come */
  async wait(what: string, wanted: (event: ProbeEvent) => boolean): Promise<ProbeEvent> {
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(look)
        reject(new Error(`${this.address} waited ${what}; it heard ${JSON.stringify(this.#events)}`))
      }, PATIENCE_MS)
      const look = (): void => {
        const found = this.#events.find(wanted)
        if (found === undefined) return
        clearTimeout(timer)
        this.#waiting.delete(look)
        resolve(found)
      }
      this.#waiting.add(look)
      look()
    })
  }

  /** Waits for a text from another probe, by datagram or connection. */
  async hears(text: string): Promise<void> {
    await this.wait(`for ${text}`, event => 'text' in event && event.kind !== 'failed' && event.text === text)
  }

  /** Whether it has heard a text up to now. */
  hasHeard(text: string): boolean {
    return this.#events.some(event => 'text' in event && event.kind !== 'failed' && event.text.includes(text))
  }

  /** What it has heard of failed connections. */
  failures(): ProbeEvent[] {
    return this.#events.filter(({ kind }) => kind === 'failed')
  }

  /** Sends to another one for a time, which forgets what it has heard before. @returns how fast it came there, in bit/s */
  async rateTo(other: LabProbe, ms: number): Promise<number> {
    other.forget()
    this.do({ do: 'flood', to: other.address, ms })
    const event = await other.wait('for the end of a flood', ({ kind }) => kind === 'rate')
    return event.kind === 'rate' ? event.bitsPerSecond : NaN
  }

  /** Forgets what it has heard, so that the next test begins anew; its connections stay. */
  forget(): void {
    this.#events.length = 0
  }

  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  async stop(): Promise<void> {
    if (this.ended) return
    const exit = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exit
  }
}
