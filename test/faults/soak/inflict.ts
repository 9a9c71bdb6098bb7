/** Does a fault to a lab, and undoes it. */
import { execFile } from 'node:child_process'
import { open, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { labCut, labCutOneWay, labJoin, labShape } from '../../../cli/lab/lab-links.ts'
import { type PoolHost } from '../../../cli/lab/pool.ts'
import { signal } from '../../../daemon/supervision/process-handle.ts'
import { type TestLab } from '../../support/test-lab.ts'
import { type FaultKind } from './fault-kinds.ts'

const run = promisify(execFile)

/** Who is hit. */
export interface Target {
  readonly victim: PoolHost
  /** The other end, of a fault of one link. */
  readonly other: PoolHost
  /** Name of the volume's datapath process. */
  readonly datapath: string
  readonly bitsPerSecond: number
  /** Told of a host whose datapath processes did not end in order. */
  readonly lost: (host: PoolHost) => void
}

export interface Inflicted {
  /** When it began, by `performance.now()`. */
  readonly startedAt: number
  /** Undoes it; all faults of links end for a host with the first. */
  end(): Promise<void>
}

/** Leaves so much to be filled by writing, because the last of a file system goes in small pieces. */
const REST_BYTES = 4 * 1024 * 1024
const PIECE_BYTES = 64 * 1024

type Action = (lab: TestLab, target: Target) => Promise<() => Promise<void>>

const kill = async (lab: TestLab, hosts: readonly PoolHost[]): Promise<void> => {
  const controls = await Promise.all(hosts.map(host => lab.control(host)))
  // Found first and killed then, so that all end in one moment.
  const processes = (await Promise.all(controls.map(control => control.processes()))).flat()
  for (const handle of processes) signal(handle, 'SIGKILL')
  await Promise.all(controls.map(control => control.kill()))
}

const start = async (lab: TestLab, hosts: readonly PoolHost[]): Promise<void> => {
  await Promise.all(hosts.map(async host => (await lab.control(host)).start()))
}

const killProgram =
  (name: (target: Target) => string): Action =>
  async (lab, target) => {
    const control = await lab.control(target.victim)
    await control.kill(name(target))
    return () => control.start()
  }

const stopProgram =
  (name: (target: Target) => string): Action =>
  async (lab, target) => {
    const control = await lab.control(target.victim)
    await control.pause(name(target))
    // It may have been killed meanwhile; then its successor runs.
    return () => control.resume()
  }

const others = (lab: TestLab, host: PoolHost): readonly PoolHost[] =>
  lab.hosts.filter(other => other !== host)

const cutting =
  (cut: (lab: TestLab, target: Target) => Promise<unknown>): Action =>
  async (lab, target) => {
    await cut(lab, target)
    return async () => {
      await labJoin(lab.labDirectory, target.victim.name)
    }
  }

const ACTIONS: Readonly<Record<FaultKind, Action>> = {
  'host killed': async (lab, { victim }) => {
    await kill(lab, [victim])
    return () => start(lab, [victim])
  },
  'host stopped': async (lab, { victim }) => {
    const control = await lab.control(victim)
    for (const handle of await control.processes()) signal(handle, 'SIGSTOP')
    return () => control.resume()
  },
  'host cut off': cutting((lab, { victim }) => labCut(lab.labDirectory, victim.name)),
  'host mute': cutting(async (lab, { victim }) => {
    for (const other of others(lab, victim)) await labCutOneWay(lab.labDirectory, victim.name, other.name)
  }),
  'host deaf': cutting(async (lab, { victim }) => {
    for (const other of others(lab, victim)) await labCutOneWay(lab.labDirectory, other.name, victim.name)
  }),
  'link cut': cutting(async (lab, { victim, other }) => {
    await labCutOneWay(lab.labDirectory, victim.name, other.name)
    await labCutOneWay(lab.labDirectory, other.name, victim.name)
  }),
  'link cut one way': cutting((lab, { victim, other }) =>
    labCutOneWay(lab.labDirectory, victim.name, other.name)
  ),
  'slow link': async (lab, { victim, bitsPerSecond }) => {
    await labShape(lab.labDirectory, bitsPerSecond, victim.name)
    return async () => {
      await labShape(lab.labDirectory, null, victim.name)
    }
  },
  'disk full': async (lab, { victim }) => {
    const balloon = balloonOf(lab, victim)
    await fill(lab.storesOf(victim), balloon)
    return () => rm(balloon, { force: true })
  },
  'datapath killed': killProgram(({ datapath }) => datapath),
  'datapath stopped': stopProgram(({ datapath }) => datapath),
  'xosand killed': killProgram(() => 'xosand'),
  'xosand stopped': stopProgram(() => 'xosand'),
  'supervisor killed': killProgram(() => 'supervisor'),
  'etcd killed': killProgram(() => 'etcd'),
  'etcd stopped': stopProgram(() => 'etcd'),
  'all killed': async lab => {
    await kill(lab, lab.hosts)
    return () => start(lab, lab.hosts)
  },
  'all restarted': async (lab, { lost }) => {
    await Promise.all(
      lab.hosts.map(async host => {
        const killed = await (await lab.control(host)).shutdown()
        if (killed.some(name => name.startsWith('datapath'))) lost(host)
      })
    )
    return () => start(lab, lab.hosts)
  },
}

export async function inflict(lab: TestLab, kind: FaultKind, target: Target): Promise<Inflicted> {
  const startedAt = performance.now()
  return { startedAt, end: await ACTIONS[kind](lab, target) }
}

const balloonOf = (lab: TestLab, host: PoolHost): string => join(lab.storesOf(host), 'balloon')

/** Undoes what of faults could be left on disks and links. */
export async function deflate(lab: TestLab): Promise<void> {
  await labShape(lab.labDirectory, null, null)
  for (const host of lab.hosts) await rm(balloonOf(lab, host), { force: true })
}

/** Takes all space of a file system. */
async function fill(directory: string, balloon: string): Promise<void> {
  const { bavail, bsize } = await statfs(directory)
  const most = bavail * bsize - REST_BYTES
  if (most > 0) await run('fallocate', ['-l', String(most), balloon])
  const file = await open(balloon, 'a', 0o600)
  try {
    for (let left = 2 * REST_BYTES; left > 0; left -= PIECE_BYTES) await file.write(Buffer.alloc(PIECE_BYTES))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
  } finally {
    await file.close()
  }
}
