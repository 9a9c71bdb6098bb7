/**
 * The stand-in for systemd on one lab host: starts xosand and the datapath processes, starts again what dies,
 * and notes in the pid file who runs. A program of its own, so that the lab lives on when the command that
 * started it has ended; killed together with its host, so that nothing is started again then.
 *
 *     node xosan-lab-host.js LAB-DIRECTORY HOST
 *
 * It may itself be killed: the programs go on, and the next supervisor finds them by the pid file.
 */
import { join } from 'node:path'
import { reasonOf } from '../../core/errors.ts'
import { handleOf } from '../../daemon/supervision/process-handle.ts'
import { bootId } from '../../daemon/supervision/run.ts'
import { type ProgramCommand, Supervised } from '../../daemon/supervision/supervised.ts'
import { type FileLock, lockFile } from './file-lock.ts'
import { forgetDomains, isDown } from './host-boot.ts'
import {
  type HostPaths,
  type Lab,
  type LabHost,
  hostNamed,
  hostPaths,
  programNames,
  readLab,
} from './layout.ts'
import { stopPrograms } from './orderly-stop.ts'
import { type PidFile, readPidFile, writePidFile } from './pid-file.ts'

/** As systemd's default RestartSec; the longest does not burn a core, and is short enough for a drill. */
const RESTART_PAUSES = { firstMs: 100, longestMs: 2_000 }
/** The supervisor before us may have been killed this very moment. */
const LOCK_WAIT_MS = 5_000

function log(text: string): void {
  process.stderr.write(`${new Date().toISOString()} ${text}\n`)
}

/**
 * Threads for file calls of a datapath process, which cannot choose for itself. A disk that hangs keeps a third of them
 * (datapath/disk/disk-lanes.ts); with Node's four, one would be left for all others.
 */
const DATAPATH_THREADS = '24'

function commandOf(name: string, lab: Lab, paths: HostPaths): ProgramCommand {
  const index = name.startsWith('datapath-') ? ['--index', name.slice('datapath-'.length)] : []
  const program = name === 'xosand' ? 'xosand.js' : 'xosan-datapath.js'
  return {
    name,
    program: process.execPath,
    arguments: [join(lab.programs, program), '--config', paths.config, ...index],
    logFile: join(paths.log, `${name}.log`),
    ...(name === 'xosand' ? {} : { environment: { ...process.env, UV_THREADPOOL_SIZE: DATAPATH_THREADS } }),
  }
}

class Supervisor {
  readonly #paths: HostPaths
  readonly #programs: Supervised[]
  /** Two supervisors of one host would start everything twice. */
  readonly #lock: FileLock
  readonly #self = handleOf(process.pid)
  #writing: Promise<void> = Promise.resolve()

  constructor(lab: Lab, host: LabHost, paths: HostPaths, lock: FileLock) {
    this.#lock = lock
    this.#paths = paths
    this.#programs = programNames(lab, host).map(
      name => new Supervised(commandOf(name, lab, paths), RESTART_PAUSES, what => this.#changed(what))
    )
  }

  async start(): Promise<void> {
    const earlier = await readPidFile(this.#paths.pids)
    if (await isDown(this.#paths, earlier)) {
      log('the host boots')
      await forgetDomains(this.#paths)
    }
    for (const program of this.#programs) {
      program.start(earlier.programs[program.name] ?? null)
    }
  }

  /** Ends the programs in order; resolves when nothing of this host runs but ourselves. */
  async stop(): Promise<void> {
    for (const program of this.#programs) {
      program.stopRestarting()
    }
    const killed = await stopPrograms(this.#state(), this.#paths)
    if (killed.length > 0) {
      log(`had to kill ${killed.join(', ')}`)
    }
    await this.#writing
    await writePidFile(this.#paths.pids, { version: 1, boot: bootId(), supervisor: null, programs: {} })
    await this.#lock.release()
  }

  #state(): PidFile {
    return {
      version: 1,
      boot: bootId(),
      supervisor: this.#self === null ? null : { ...this.#self, restarts: 0 },
      programs: Object.fromEntries(this.#programs.map(program => [program.name, program.run])),
    }
  }

  #changed(what: string): void {
    log(what)
    this.#writing = this.#writing
      .then(() => writePidFile(this.#paths.pids, this.#state()))
      .catch((error: unknown) => {
        // The host's directory may be going away under us; the processes matter more than the note about them.
        log(`the pid file could not be written: ${reasonOf(error)}`)
      })
  }
}

async function main(): Promise<void> {
  const [directory, name] = process.argv.slice(2)
  const lab = directory === undefined ? null : await readLab(directory)
  if (directory === undefined || name === undefined || lab === null) {
    throw new Error('usage: xosan-lab-host LAB-DIRECTORY HOST')
  }
  const host = hostNamed(lab, name)
  const paths = hostPaths(directory, lab, host.name)
  const lock = await lockFile(paths.supervisorLock, LOCK_WAIT_MS)
  const supervisor = new Supervisor(lab, host, paths, lock)
  let stopping = false
  const stop = (): void => {
    if (!stopping) {
      stopping = true
      void supervisor.stop().then(
        () => process.exit(0),
        (error: unknown) => {
          log(`stop failed: ${reasonOf(error)}`)
          process.exit(1)
        }
      )
    }
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  process.on('SIGHUP', () => undefined)
  await supervisor.start()
}

await main().catch((error: unknown) => {
  log(`supervisor failed: ${reasonOf(error)}`)
  process.exit(1)
})
