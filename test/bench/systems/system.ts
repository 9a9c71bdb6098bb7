/** What is measured: XOSAN, and what others would give a guest in its place. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { requireProgram } from '../../../cli/lab/find-program.ts'
import { type Target } from '../fio.ts'
import { withChildren } from '../processes.ts'

/** A host on whose network a system may run programs. */
export interface BenchHost {
  readonly address: string
  /** Words that make a command run in its network. */
  readonly prefix: readonly string[]
  /** For files of peers on this host's disk. */
  readonly directory: string
}

export interface BenchPlace {
  /** Where the client is. */
  readonly near: BenchHost
  /** Where the second copy is, or the only one. */
  readonly far: BenchHost
  /** Size of the disk. */
  readonly bytes: number
}

export interface RunningSystem {
  readonly target: Target
  /** Where the client runs. */
  readonly prefix: readonly string[]
  /** Of all its processes, on both hosts. */
  readonly pids: () => Promise<readonly number[]>
  readonly stop: () => Promise<void>
}

export interface System {
  /** One word, as for `--systems`. */
  readonly name: string
  readonly title: string
  /** Copies of the data, on as many hosts. */
  readonly copies: number
  /** What it is, in a sentence, with all options that matter. */
  readonly about: string
  /** The client never flushes: see `FioOptions.flushes`. */
  readonly neverFlushes?: boolean
  /** Takes what another system has started, and not one of its own: the same disk with another client. */
  readonly sameAs?: string
  readonly start: (place: BenchPlace) => Promise<RunningSystem>
}

const READY_MS = 20_000
const END_MS = 10_000

/** Programs of one system, ended with it. */
export class Programs {
  readonly #children: { readonly child: ChildProcess; readonly name: string }[] = []

  /** Starts a program, which says what it says into a file beside its data. */
  async start(
    host: BenchHost,
    name: string,
    packageName: string,
    words: readonly string[]
  ): Promise<ChildProcess> {
    const program = requireProgram('Comparing with others', name, packageName)
    const log = await open(join(host.directory, `${name}.log`), 'a')
    try {
      const [command, ...rest] = [...host.prefix, program, ...words]
      const child = spawn(command!, rest, { stdio: ['ignore', log.fd, log.fd] })
      child.on('error', () => undefined)
      this.#children.push({ child, name })
      return child
    } finally {
      await log.close()
    }
  }

  pids(): number[] {
    return this.#children.flatMap(({ child: { pid } }) => (pid === undefined ? [] : withChildren(pid)))
  }

  /** Waits until something can be done. @throws Error when a program ends before, or it takes too long */
  async until(what: string, ready: () => Promise<boolean>): Promise<void> {
    const end = performance.now() + READY_MS
    while (!(await ready())) {
      const ended = this.#children.find(({ child }) => child.exitCode !== null || child.signalCode !== null)
      if (ended !== undefined)
        throw new Error(`${ended.name} ended before ${what}; its log is beside its data`)
      if (performance.now() > end) throw new Error(`${what}: not within ${READY_MS / 1000} s`)
      await delay(20)
    }
  }

  async stop(): Promise<void> {
    for (const { child } of this.#children.splice(0).reverse()) {
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) continue
      const ended = once(child, 'exit')
      child.kill('SIGTERM')
      const late = setTimeout(() => child.kill('SIGKILL'), END_MS)
      await ended
      clearTimeout(late)
    }
  }
}

/** A sparse file of a disk's size. */
export async function makeDisk(host: BenchHost, name: string, bytes: number): Promise<string> {
  const path = join(host.directory, `${name}.raw`)
  const file = await open(path, 'w', 0o600)
  try {
    await file.truncate(bytes)
  } finally {
    await file.close()
  }
  return path
}
