/**
 * Runs every workload on every system, one after the other, again and again. What is compared is measured within seconds
 * of each other: a virtual machine's disk and processors are not the same from one minute to the next.
 */
import { fill, type Measurement, runFio } from './fio.ts'
import { type Usage, usageOf } from './processes.ts'
import { type BenchPlace, type RunningSystem, type System } from './systems/system.ts'
import { type Workload } from './workloads.ts'

export interface Link {
  readonly name: string
  /** Null: no limit. */
  readonly bitsPerSecond: number | null
}

export interface Plan {
  readonly systems: readonly System[]
  readonly links: readonly Link[]
  readonly workloads: readonly Workload[]
  /** Leaves out what is not worth its time; absent: everything is. */
  readonly isWanted?: (link: Link, workload: Workload) => boolean
  readonly repetitions: number
  readonly seconds: number
  readonly place: BenchPlace
  readonly shape: (link: Link) => Promise<void>
  readonly progress: (text: string) => void
}

export interface Sample extends Measurement {
  /** Of the system's processes on all hosts. */
  readonly serverSeconds: number
}

export interface Series {
  readonly link: string
  readonly workload: string
  readonly system: string
  /** By repetition; undefined where it failed. */
  readonly samples: readonly (Sample | undefined)[]
}

export interface Outcome {
  readonly series: readonly Series[]
  /** By system; of all its processes. */
  readonly usage: ReadonlyMap<string, Usage>
  /** What could not be measured, as sentences. */
  readonly failures: readonly string[]
}

interface Started {
  readonly system: System
  readonly running: RunningSystem
}

export async function measure(plan: Plan): Promise<Outcome> {
  const failures: string[] = []
  const started = await startAll(plan, failures)
  try {
    const samples = new Map<string, (Sample | undefined)[]>()
    for (const link of plan.links) {
      await plan.shape(link)
      for (let repetition = 0; repetition < plan.repetitions; repetition++) {
        for (const workload of plan.workloads) {
          if (plan.isWanted?.(link, workload) === false) continue
          const figures: string[] = []
          for (const { system, running } of turned(started, repetition)) {
            const key = JSON.stringify([link.name, workload.name, system.name])
            const all = samples.get(key) ?? []
            samples.set(key, all)
            try {
              const found = await sample(plan, system, running, workload)
              all[repetition] = found
              figures.push(`${system.name} ${Math.round(found.perSecond)}`)
            } catch (error) {
              all[repetition] = undefined
              failures.push(`${system.name}, ${workload.name}, ${link.name}: ${String(error)}`)
            }
          }
          const where = `${link.name}, ${repetition + 1}/${plan.repetitions}, ${workload.name}`
          plan.progress(`${where}: ${figures.join(', ')}`)
        }
      }
    }
    await plan.shape({ name: 'unshaped', bitsPerSecond: null })
    const usage = new Map<string, Usage>()
    for (const { system, running } of started) usage.set(system.name, usageOf(await running.pids()))
    const series = [...samples].map(([key, all]) => {
      const [link, workload, system] = JSON.parse(key) as [string, string, string]
      return { link, workload, system, samples: all }
    })
    return { series, usage, failures }
  } finally {
    for (const { system, running } of started) {
      if (system.sameAs === undefined) await running.stop().catch(() => undefined)
    }
  }
}

async function startAll(plan: Plan, failures: string[]): Promise<Started[]> {
  const { place, systems, progress } = plan
  const started: Started[] = []
  for (const system of systems) {
    const other = started.find(each => each.system.name === system.sameAs)
    if (other !== undefined) {
      started.push({ system, running: other.running })
      continue
    }
    if (system.sameAs !== undefined) {
      failures.push(`${system.name} needs ${system.sameAs}`)
      continue
    }
    try {
      const running = await system.start(place)
      started.push({ system, running })
      progress(`${system.name} runs; its disk is filled`)
      await fill({ target: running.target, prefix: running.prefix, bytes: place.bytes })
    } catch (error) {
      failures.push(`${system.name} does not start: ${String(error)}`)
    }
  }
  return started
}

/** Another one begins each time: whoever comes after a system that has left much to be written has a disadvantage. */
const turned = <T>(all: readonly T[], by: number): T[] => {
  const at = all.length === 0 ? 0 : by % all.length
  return [...all.slice(at), ...all.slice(0, at)]
}

async function sample(
  { place, seconds }: Plan,
  system: System,
  { target, prefix, pids }: RunningSystem,
  workload: Workload
): Promise<Sample> {
  const all = await pids()
  const before = usageOf(all).seconds
  const flushes = system.neverFlushes !== true
  const measured = await runFio({ target, prefix, workload, bytes: place.bytes, seconds, flushes })
  return { ...measured, serverSeconds: usageOf(all).seconds - before }
}
