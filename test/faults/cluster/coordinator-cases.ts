/**
 * What is done to the members of etcd, and what a guest may notice of it. With all replicas in contact: nothing. When a
 * replica is lost that only the coordinator could record: a wait, until the coordinator is back.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { labCut, labJoin } from '../../../cli/lab/lab-links.ts'
import { type PoolHost, closeVolume, createVolume, destroyVolume, openVolume } from '../../../cli/lab/pool.ts'
import { datapathIndexOf } from '../../../core/placement/datapath-index.ts'
import { type VolumeKey } from '../../../core/units.ts'
import { DATAPATHS, type TestLab } from '../../support/test-lab.ts'
import { type Load } from '../load/load-client.ts'
import { WRITES_IN_FLIGHT_MIN } from '../matrix/round.ts'
import { until, within } from './bounded.ts'
import { allHosts, etcdStatus } from './cluster-state.ts'
import { type DrillResult, VolumeDrill } from './volume-drill.ts'

interface CaseOutcome {
  readonly writesInFlight: number
  /** Longest time that a request waited while members were away; in milliseconds. */
  readonly stallMs: number
  /** How long I/O was held, until something came back; null when it was not to be. */
  readonly heldMs: number | null
  /** From then until a write was acknowledged; or how long a volume took to be opened without the old leader. */
  readonly wentOnMs: number | null
  readonly returnStallMs: number
}

export interface CaseResult extends CaseOutcome, DrillResult {
  readonly name: string
}

export interface CoordinatorCase {
  readonly name: string
  readonly ofLinks: boolean
  run(drill: VolumeDrill, load: Load): Promise<Omit<CaseOutcome, 'returnStallMs'>>
}

/** Members are away for so long while I/O goes on. */
const AWAY_MS = 20_000
/** I/O that is to be held is watched for so long, once the replica has been missed. */
const HOLD_MS = 8_000
/** By then a lost replica has been missed (2.5 s), and every request waits for it. */
const MISSED_MS = 6_000
/** A guest notices nothing of the coordinator; this much is the machine. */
const STALL_MS_MAX = 2_000
/** From the return of the coordinator: an election, and what waited for it. */
const WENT_ON_MS_MAX = 15_000
/** A replica that is lost while the leader is away: 2.5 s to miss it, then an election. */
const LEADERLESS_STALL_MS_MAX = 10_000
const DEADLINE_MS = 60_000
const SMALL_BYTES = 4 * 1024 * 1024

const ETCD = 'etcd'

/** Runs a case on a volume of its own. */
export async function runCase(lab: TestLab, one: CoordinatorCase, number: number): Promise<CaseResult> {
  const drill = await VolumeDrill.begin(lab, number)
  const { outcome, ...result } = await drill.run(async (): Promise<CaseOutcome> => {
    const load = await drill.openUnderLoad()
    const outcome = await one.run(drill, load)
    return { ...outcome, returnStallMs: await drill.comesBack(drill.host('primary'), load) }
  })
  const nothing = { writesInFlight: 0, stallMs: 0, heldMs: null, wentOnMs: null, returnStallMs: 0 }
  return { ...nothing, ...outcome, ...result, name: one.name }
}

type Loss = 'stopped' | 'killed'

/** All members end or stand still. Those that are killed stay so, because nobody is there to start them again. */
async function loseCoordinator(lab: TestLab, how: Loss): Promise<void> {
  for (const host of allHosts(lab)) {
    const control = await lab.control(host)
    if (how === 'stopped') {
      await control.pause(ETCD)
    } else {
      await control.pause('xosand')
      await control.kill(ETCD)
    }
  }
}

/** @param without a host that is dead */
async function bringBackCoordinator(lab: TestLab, how: Loss, without: PoolHost | null): Promise<void> {
  for (const host of allHosts(lab)) {
    if (host !== without) await (await lab.control(host)).resume(how === 'stopped' ? ETCD : 'xosand')
  }
}

const momentOf = (load: Load): Promise<number> => load.signal('SIGSTOP', [], WRITES_IN_FLIGHT_MIN)

async function killHost(lab: TestLab, host: PoolHost): Promise<void> {
  await (await lab.control(host)).kill()
}

/** I/O goes on while all members are away. */
const goesOnWithout = (how: Loss): CoordinatorCase => ({
  name: `all ${how}`,
  ofLinks: false,
  run: async (drill, load) => {
    const writesInFlight = await momentOf(load)
    await loseCoordinator(drill.lab, how)
    await delay(AWAY_MS)
    const { longestStallMs } = await drill.progress(load)
    drill.limit('without the coordinator a request was answered', longestStallMs, STALL_MS_MAX)
    await bringBackCoordinator(drill.lab, how, null)
    return { writesInFlight, stallMs: longestStallMs, heldMs: null, wentOnMs: null }
  },
})

/** Once a lost replica has been missed nothing is acknowledged. @returns for how long that was seen */
async function isHeld(drill: VolumeDrill, load: Load): Promise<number> {
  await delay(MISSED_MS)
  const before = await load.report()
  await delay(HOLD_MS)
  const after = await load.report()
  const acknowledged = after.writesAcknowledged - before.writesAcknowledged
  if (acknowledged > 0)
    drill.faults.push(`${acknowledged} writes were acknowledged that should have been held`)
  if (after.connectionLost) drill.faults.push('the connection was lost')
  drill.faults.push(...after.errors)
  return after.longestStallMs
}

async function goesOn(drill: VolumeDrill, load: Load): Promise<number> {
  const startedAt = performance.now()
  await within('I/O goes on', DEADLINE_MS, load.progress(1, DEADLINE_MS))
  const ms = Math.round(performance.now() - startedAt)
  drill.limit('I/O went on', ms, WENT_ON_MS_MAX)
  await drill.progress(load)
  return ms
}

/** I/O is held when a replica is lost that moment, and goes on when the coordinator is back. */
const heldWithout = (how: Loss): CoordinatorCase => ({
  name: `all ${how}, secondary killed`,
  ofLinks: false,
  run: async (drill, load) => {
    const secondary = drill.host('secondary')
    const writesInFlight = await momentOf(load)
    await loseCoordinator(drill.lab, how)
    await killHost(drill.lab, secondary)
    const heldMs = await isHeld(drill, load)
    await bringBackCoordinator(drill.lab, how, secondary)
    return { writesInFlight, stallMs: heldMs, heldMs, wentOnMs: await goesOn(drill, load) }
  },
})

/** The replica may be back before the coordinator is. */
const replicaReturnsFirst: CoordinatorCase = {
  name: 'all stopped, secondary cut and joined',
  ofLinks: true,
  run: async (drill, load) => {
    const { lab } = drill
    const secondary = drill.host('secondary').name
    const writesInFlight = await momentOf(load)
    await loseCoordinator(lab, 'stopped')
    await labCut(lab.labDirectory, secondary)
    const heldMs = await isHeld(drill, load)
    await labJoin(lab.labDirectory, secondary)
    const wentOnMs = await goesOn(drill, load)
    await bringBackCoordinator(lab, 'stopped', null)
    return { writesInFlight, stallMs: heldMs, heldMs, wentOnMs }
  },
}

/** The host whose member leads. */
async function leaderOf(lab: TestLab): Promise<PoolHost> {
  let leader: string | undefined
  await until('etcd has a leader', DEADLINE_MS, async () => {
    leader = (await etcdStatus(lab)).find(({ state }) => state?.leads === true)?.host
    return leader === undefined ? 'nobody says that it leads' : null
  })
  return allHosts(lab).find(({ uuid }) => uuid === leader)!
}

const leaderPaused: CoordinatorCase = {
  name: 'leader stopped',
  ofLinks: false,
  run: async (drill, load) => {
    const { lab } = drill
    const leader = await lab.control(await leaderOf(lab))
    const writesInFlight = await momentOf(load)
    await leader.pause(ETCD)
    // Something that only the coordinator can decide.
    const startedAt = performance.now()
    const small = await createVolume(lab.hosts[0]!, lab.sr.sr, randomUUID(), SMALL_BYTES)
    await openVolume(lab.hosts[0]!, small)
    const wentOnMs = Math.round(performance.now() - startedAt)
    drill.limit('a new volume was open', wentOnMs, WENT_ON_MS_MAX)
    await delay(Math.max(0, AWAY_MS - wentOnMs))
    const { longestStallMs } = await drill.progress(load)
    drill.limit('without the leader a request was answered', longestStallMs, STALL_MS_MAX)
    await leader.resume(ETCD)
    await closeVolume(lab.hosts[0]!, small)
    await destroyVolume(lab.hosts[0]!, small)
    return { writesInFlight, stallMs: longestStallMs, heldMs: null, wentOnMs }
  },
}

/** A replica is lost at that moment; its host and its member of etcd live, so a new leader can record it. */
const replicaLostWithLeader: CoordinatorCase = {
  name: 'leader and secondary replica stopped',
  ofLinks: false,
  run: async (drill, load) => {
    const { lab, volume } = drill
    const leader = await lab.control(await leaderOf(lab))
    const secondary = await lab.control(drill.host('secondary'))
    const writesInFlight = await momentOf(load)
    await leader.pause(ETCD)
    await secondary.pause(`datapath-${datapathIndexOf(volume.key as VolumeKey, DATAPATHS)}`)
    await drill.progress(load)
    const { longestStallMs } = await drill.progress(load)
    drill.limit('a request was answered', longestStallMs, LEADERLESS_STALL_MS_MAX)
    await leader.resume(ETCD)
    return { writesInFlight, stallMs: longestStallMs, heldMs: null, wentOnMs: null }
  },
}

export const COORDINATOR_CASES: readonly CoordinatorCase[] = [
  goesOnWithout('stopped'),
  goesOnWithout('killed'),
  heldWithout('stopped'),
  heldWithout('killed'),
  replicaReturnsFirst,
  leaderPaused,
  replicaLostWithLeader,
]
