/** What a drill does to one lab host: start, kill, shut down, pause, resume, look. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { XosanError } from '../../core/errors.ts'
import { lockFile } from './file-lock.ts'
import { etcdPrograms, isOfEtcd } from './host-etcd.ts'
import { whileLabLocked } from './lab-lock.ts'
import { type HostPaths, type Lab, type LabHost, hostPaths, programNames, readLab } from './layout.ts'
import { ensureNetwork } from './network/make-network.ts'
import { commandInHost, hasNamespaces, processesInHost } from './network/namespaces.ts'
import { killAll, stopPrograms } from './orderly-stop.ts'
import { handlesIn, readPidFile } from './pid-file.ts'
import {
  type ProcessCondition,
  type ProcessHandle,
  conditionOf,
  processesWithArguments,
  signal,
  waitForCondition,
} from '../../daemon/supervision/process-handle.ts'
import { waitUntilReady } from './readiness.ts'

/** How long a supervisor may take to shut its host down: its programs' own times one after the other. */
const SHUTDOWN_TIMEOUT_MS = 120_000
const PAUSE_TIMEOUT_MS = 10_000
/** Another command holds a host's lock for as long as processes take to die. */
const LOCK_WAIT_MS = 30_000
/** From a host's first process to the last one that answers, in milliseconds, on a machine that is busy. */
const UP_TIMEOUT_MS = 90_000
/** While a host starts, how often to see whether it still has a supervisor. */
const SUPERVISOR_CHECK_MS = 250

/** One process of a host; `pid` is null while it is down. */
export interface ProcessStatus {
  readonly name: string
  readonly pid: number | null
  readonly condition: ProcessCondition
  /** By the host's supervisor; null for a member of etcd, which xosand looks after. */
  readonly restarts: number | null
}

export interface HostStatus {
  readonly name: string
  /** `up` when every process is, `down` when none is, `paused` when all are; else `partly`. A member of etcd may lack. */
  readonly condition: ProcessCondition | 'partly'
  readonly processes: readonly ProcessStatus[]
}

export class HostControl {
  readonly host: LabHost
  readonly paths: HostPaths
  readonly #directory: string
  readonly #lab: Lab

  /** @param directory of the lab, absolute */
  constructor(directory: string, lab: Lab, host: LabHost) {
    this.#directory = directory
    this.#lab = lab
    this.host = host
    this.paths = hostPaths(directory, lab, host.name)
  }

  /** Starts whatever is missing and resolves when everything answers. */
  async start(): Promise<void> {
    await this.#ensureSupervised()
    const ready = new AbortController()
    // The supervisor that is there now may be on its way out, by a shutdown that was ordered before us.
    const keepSupervised = async (): Promise<void> => {
      for (;;) {
        await delay(SUPERVISOR_CHECK_MS, undefined, { signal: ready.signal })
        await this.#ensureSupervised()
      }
    }
    const supervised = keepSupervised()
    try {
      await Promise.race([this.#waitUntilUp(), supervised])
    } finally {
      ready.abort()
      await supervised.catch(() => undefined)
    }
  }

  /**
   * SIGKILL to everything, as when the host loses power, but that the page cache stays.
   *
   * @param program ends this one only, which is then started again by whoever looks after it
   * @throws XosanError INVALID_ARGUMENT when that does not run
   */
  async kill(program?: string): Promise<void> {
    if (program === undefined) await this.#whileLocked(() => this.#killEverything())
    else await killAll([await this.#running(program)])
  }

  /**
   * Ends everything in order.
   *
   * @returns names of the programs that did not end by themselves and were killed
   */
  async shutdown(): Promise<string[]> {
    const supervisors = await this.#supervisors()
    for (const supervisor of supervisors) {
      signal(supervisor, 'SIGCONT')
      signal(supervisor, 'SIGTERM')
    }
    await killAll(await waitForCondition(supervisors, 'down', SHUTDOWN_TIMEOUT_MS))
    // Without a supervisor, or after one that hung, the programs are still there.
    const killed = await stopPrograms(await readPidFile(this.paths.pids), this.paths)
    await this.#whileLocked(() => this.#killEverything())
    return killed
  }

  /**
   * SIGSTOP to everything: the host is there but says nothing, and wakes up later none the wiser.
   *
   * @param program stops this one only
   * @throws XosanError INVALID_ARGUMENT when that does not run
   */
  async pause(program?: string): Promise<void> {
    await this.#signal('SIGSTOP', 'paused', program)
  }

  /** Lets everything go on, or one program only. @throws as {@link pause} */
  async resume(program?: string): Promise<void> {
    await this.#signal('SIGCONT', 'up', program)
  }

  async status(): Promise<HostStatus> {
    const noted = handlesIn(await readPidFile(this.paths.pids))
    const known = new Map(noted.map(({ name, ...run }) => [name, run]))
    const own = ['supervisor', ...programNames(this.#lab, this.host)].map((name): ProcessStatus => {
      const run = known.get(name)
      const condition = run === undefined ? 'down' : conditionOf(run.handle)
      return {
        name,
        condition,
        pid: run === undefined || condition === 'down' ? null : run.handle.pid,
        restarts: run?.restarts ?? 0,
      }
    })
    const etcd = (await etcdPrograms(this.paths)).map(({ name, handle }): ProcessStatus => ({
      name,
      condition: conditionOf(handle),
      pid: handle.pid,
      restarts: null,
    }))
    const processes = [...own, ...etcd]
    const conditions = new Set(processes.map(process => process.condition))
    const [only] = conditions
    return {
      name: this.host.name,
      condition: conditions.size === 1 && only !== undefined ? only : 'partly',
      processes,
    }
  }

  /** The programs that its supervisor has noted, by name, the supervisor, and its member of etcd. */
  async named(): Promise<ReadonlyMap<string, ProcessHandle>> {
    const noted = handlesIn(await readPidFile(this.paths.pids))
    const etcd = await etcdPrograms(this.paths)
    return new Map([...noted, ...etcd].map(({ name, handle }) => [name, handle]))
  }

  /** Everything of this host that lives, the supervisor first; in a namespace also what others started in it. */
  async processes(): Promise<ProcessHandle[]> {
    const noted = handlesIn(await readPidFile(this.paths.pids)).map(({ handle }) => handle)
    const found = [
      ...(await this.#supervisors()),
      ...noted,
      ...(await processesWithArguments('--config', this.paths.config)),
      ...(await etcdPrograms(this.paths)).map(({ handle }) => handle),
      ...(await processesInHost(this.#lab, this.host)),
    ]
    const byPid = new Map(found.map(handle => [handle.pid, handle]))
    return [...byPid.values()].filter(handle => conditionOf(handle) !== 'down')
  }

  async #running(program: string): Promise<ProcessHandle> {
    const running = [...(await this.named())].filter(([, handle]) => conditionOf(handle) !== 'down')
    const found = running.find(([name]) => name === program)
    if (found !== undefined) return found[1]
    const names = running.map(([name]) => name).join(', ')
    throw new XosanError('INVALID_ARGUMENT', {
      what: `program ${program} of ${this.host.name}`,
      reason: names === '' ? 'nothing of this host runs' : `running are ${names}`,
    })
  }

  async #signal(
    name: 'SIGSTOP' | 'SIGCONT',
    condition: ProcessCondition,
    program: string | undefined
  ): Promise<void> {
    const handles = program === undefined ? await this.processes() : [await this.#running(program)]
    for (const handle of handles) {
      signal(handle, name)
    }
    const others = await waitForCondition(handles, condition, PAUSE_TIMEOUT_MS)
    const left = others.filter(handle => conditionOf(handle) !== 'down')
    if (left.length > 0) {
      throw new Error(`processes ${left.map(({ pid }) => pid).join(', ')} are not ${condition} after ${name}`)
    }
  }

  /** Programs may answer before a new supervisor has adopted them: it must have, or the next death goes unseen. */
  async #waitUntilUp(): Promise<void> {
    const end = performance.now() + UP_TIMEOUT_MS
    do {
      if (performance.now() >= end) {
        throw new XosanError('DEADLINE_EXCEEDED', {
          what: `Starting all of ${this.host.name} (see ${this.paths.log}/supervisor.log)`,
          deadlineMs: UP_TIMEOUT_MS,
        })
      }
      await waitUntilReady(this.#lab, this.host, this.paths)
    } while (!(await this.#isSupervisedWhole()))
  }

  /** Whether all that the supervisor looks after runs; whether a member of etcd does is xosand's business. */
  async #isSupervisedWhole(): Promise<boolean> {
    const { processes } = await this.status()
    return processes.every(({ name, condition }) => isOfEtcd(name) || condition === 'up')
  }

  /** @throws XosanError INVALID_ARGUMENT when the lab has been removed meanwhile */
  async #ensureSupervised(): Promise<void> {
    await whileLabLocked(this.#directory, async () => {
      if ((await readLab(this.#directory)) === null) {
        throw new XosanError('INVALID_ARGUMENT', { what: this.#directory, reason: 'the lab is gone' })
      }
      await this.#whileLocked(async () => {
        if ((await this.#supervisors()).length === 0) {
          if (hasNamespaces(this.#lab)) await ensureNetwork(this.#lab)
          await this.#spawnSupervisor()
        }
      })
    })
  }

  async #spawnSupervisor(): Promise<void> {
    const log = openSync(join(this.paths.log, 'supervisor.log'), 'a', 0o600)
    const command = [process.execPath, ...this.#supervisorArguments()]
    const [program, ...words] = commandInHost(this.#lab, this.host, command)
    const child = spawn(program!, words, {
      cwd: '/',
      detached: true,
      // A caller that reads our output to its end must not wait for the lab's.
      stdio: ['ignore', log, log],
    })
    closeSync(log)
    child.unref()
    await once(child, 'spawn')
  }

  async #killEverything(): Promise<void> {
    // Again, for what the supervisor started while it died.
    for (let left = await this.processes(); left.length > 0; left = await this.processes()) {
      await killAll(left)
    }
  }

  /** Keeps two commands from starting one host twice, or one from starting what the other is killing. */
  async #whileLocked<T>(action: () => Promise<T>): Promise<T> {
    const lock = await lockFile(this.paths.hostLock, LOCK_WAIT_MS)
    try {
      return await action()
    } finally {
      await lock.release()
    }
  }

  #supervisorArguments(): string[] {
    return [join(this.#lab.programs, 'xosan-lab-host.js'), this.#directory, this.host.name]
  }

  #supervisors(): Promise<ProcessHandle[]> {
    return processesWithArguments(...this.#supervisorArguments())
  }
}
