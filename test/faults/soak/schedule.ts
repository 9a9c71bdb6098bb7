/**
 * What a soak does, drawn from its seed before anything is done, and written to a file, so that it can be done again. Who
 * is hit is said by what the host is to a volume at that moment; the log says which host that was.
 */
import { z } from 'zod'
import { SeededRandom } from '../../simulator/seeded-random.ts'
import { FAULT_KINDS, type FaultKind } from './fault-kinds.ts'

const MIB = 1024 * 1024

const volumeSchema = z.strictObject({
  /** In bytes. */
  size: z.number().int().positive(),
  /** `load`: our own, which judges every read; `foreign`: qemu-io, nbdsh, nbdcopy and fio by turns. */
  guest: z.enum(['load', 'foreign']),
  /** Of the load: requests kept in flight, and after how many writes it flushes; 0 for never. */
  writes: z.number().int().min(1).max(64),
  reads: z.number().int().min(0).max(16),
  flushEvery: z.number().int().min(0).max(1000),
})

const faultSchema = z.strictObject({
  kind: z.enum(Object.keys(FAULT_KINDS) as [FaultKind, ...FaultKind[]]),
  /** Index of the volume to which the victim is this. */
  volume: z.number().int().nonnegative(),
  role: z.enum(['primary', 'secondary', 'bystander']),
  /** When it begins, after the beginning of its episode, and for how long it lasts; in milliseconds. */
  afterMs: z.number().int().nonnegative(),
  lastsMs: z.number().int().nonnegative(),
  /** Of shaping. */
  bitsPerSecond: z.number().int().positive().optional(),
})

const episodeSchema = z.strictObject({
  faults: z.array(faultSchema).min(1).max(4),
  /** Whether guests whose primary's host may live on are left connected to it, rather than killed. */
  leavesGuests: z.boolean(),
  /** Whether everything is in-sync again before the next episode begins. */
  settles: z.boolean(),
  /** Chooses among hosts of equal rank. */
  choice: z.number().int().nonnegative(),
  /** Calm before it, in milliseconds. */
  calmMs: z.number().int().nonnegative(),
})

const scheduleSchema = z.strictObject({
  version: z.literal(1),
  seed: z.number().int().nonnegative(),
  minutes: z.number().positive(),
  hosts: z.number().int().min(3).max(5),
  copies: z.number().int().min(2).max(3),
  /** Names of hosts that lose at a power cut what they have not synced, and how much they keep in memory. */
  powerCuts: z.array(z.string()),
  unsyncedBytesMax: z.number().int().positive(),
  diskBytes: z.number().int().positive(),
  volumes: z.array(volumeSchema).min(1),
  /** More than there will be time for. */
  episodes: z.array(episodeSchema).min(1),
})

export type Schedule = z.infer<typeof scheduleSchema>
export type Episode = Schedule['episodes'][number]
export type Fault = Episode['faults'][number]
export type VolumePlan = Schedule['volumes'][number]

export const parseSchedule = (text: string): Schedule => scheduleSchema.parse(JSON.parse(text))

/** An episode takes longer than this. */
const EPISODE_MS_MIN = 5_000
/** Replicas are missed after 2.5 s, promises end after 4 s; then there is some time without them. */
const LASTS_MS_MIN = 500
const LASTS_MS_MAX = 12_000
/** One in so many faults lasts for up to half a minute. */
const LONG_ONE_IN = 6
const LASTS_LONG_MS_MAX = 30_000

/** Draws a schedule. The same seed and minutes give the same one. @param only kinds of faults to draw from */
export function drawSchedule(
  seed: number,
  minutes: number,
  only: readonly FaultKind[] = Object.keys(FAULT_KINDS) as FaultKind[]
): Schedule {
  const random = new SeededRandom(seed)
  const one = <T>(items: readonly T[]): T => items[random.below(items.length)]!
  const hosts = 3 + random.below(3)
  const names = Array.from({ length: hosts }, (_, index) => `h${index + 1}`)
  // Mostly all; hosts without it show what killed processes leave in the page cache of a kernel that lives on.
  const powerCuts = random.below(3) > 0 ? names : names.filter(() => random.below(2) === 0)
  const volumes = Array.from({ length: 3 + random.below(2) }, (_, index): VolumePlan => ({
    size: (16 + 8 * random.below(3)) * MIB,
    guest: index === 1 ? 'foreign' : 'load',
    writes: 8 + random.below(25),
    reads: 1 + random.below(4),
    // The first never flushes, as tapdisk.
    flushEvery: index === 0 ? 0 : one([8, 32, 64, 256]),
  }))
  const weighted = only.flatMap(kind => Array.from({ length: FAULT_KINDS[kind].weight }, () => kind))
  const drawFault = (first: boolean): Fault => {
    const kind = one(first ? weighted : weighted.filter(other => !FAULT_KINDS[other].ofAll))
    const longest = random.below(LONG_ONE_IN) === 0 ? LASTS_LONG_MS_MAX : LASTS_MS_MAX
    return {
      kind,
      volume: random.below(volumes.length),
      role: one(['primary', 'secondary', 'secondary', 'bystander']),
      afterMs: first ? 0 : random.below(4_000),
      lastsMs: LASTS_MS_MIN + random.below(longest - LASTS_MS_MIN),
      ...(kind === 'slow link' ? { bitsPerSecond: one([5e6, 20e6, 100e6]) } : {}),
    }
  }
  const drawEpisode = (): Episode => {
    const faults = [drawFault(true)]
    if (weighted.some(kind => !FAULT_KINDS[kind].ofAll)) {
      while (faults.length < 4 && random.below(3) === 0) faults.push(drawFault(false))
    }
    return {
      faults,
      leavesGuests: random.below(2) === 0,
      settles: random.below(4) > 0,
      choice: random.below(1000),
      calmMs: 500 + random.below(3_000),
    }
  }
  return {
    version: 1,
    seed,
    minutes,
    hosts,
    copies: random.below(3) === 0 ? 3 : 2,
    powerCuts,
    unsyncedBytesMax: one([1, 8, 64]) * MIB,
    diskBytes: 512 * MIB,
    volumes,
    episodes: Array.from({ length: Math.ceil((minutes * 60_000) / EPISODE_MS_MIN) }, drawEpisode),
  }
}
