/**
 * Brings to an end what was left half-done: by an earlier run of this process, by hosts that died, by calls that could
 * not reach everybody. Each task may be repeated at any time and by several hosts at once; none takes anything away
 * that a record still names.
 */
import { join } from 'node:path'
import { reasonOf } from '../core/errors.ts'
import { type Operation } from '../core/mirror/volume-record.ts'
import { type Timer } from '../core/ports/clock.ts'
import { millis, type Millis, type ReplicaId, type SrId, type VolumeKey } from '../core/units.ts'
import { parseKey, storeKey, tombstoneKey } from '../cluster/keys.ts'
import { parseStoreRecord, serialiseStoreRecord, type TombstoneRecord } from '../cluster/records.ts'
import { update } from '../cluster/update.ts'
import { type Metadata, type VolumeContext } from '../volume/context.ts'
import { Deadline } from '../volume/deadline.ts'
import { removeSr } from '../volume/sr/remove.ts'
import { removeVolume } from '../volume/volumes/volume-record.ts'
import { type Log } from './log.ts'
import { StaleVolumes } from './stale-volumes.ts'
import { type HostStores } from './stores.ts'

/** One task of a round may take this long; what is not done then is tried in the next round. */
const TASK_MS = 20_000
/** Tombstones carried out in one round: a large SR that is emptied must not hold up the rest. */
const TOMBSTONES_PER_ROUND = 64
/** A destroyed volume's last tombstones come with it; a moment later they are all here. */
const TOMBSTONE_DELAY_MS = 200
/** Another host's operation is left alone for this long: a host that is busy or restarting comes back to it itself. */
const PATIENCE_MS = 30_000
/** The space of a store is reported when it has changed by this part of the whole. */
const SPACE_CHANGE = 0.01
/** Files that nobody knows are looked for now and then; they are only reported. */
const ROUNDS_PER_LOOK = 12

interface JanitorOptions {
  readonly context: VolumeContext
  readonly stores: Pick<HostStores, 'attached' | 'space' | 'volumeNames'>
  readonly log: Log
  readonly intervalMs: Millis
  /** Run with each round: compares the datapath processes with the references. */
  readonly reconcile: () => Promise<void>
}

export class Janitor {
  readonly #options: JanitorOptions
  /** Volumes that were seen half-done; null before the first look at all of them. */
  #halfDone: Map<VolumeKey, SrId> | null = null
  readonly #staleVolumes: StaleVolumes
  /** Replicas whose tombstones could not be carried out, the one tried longest ago first. */
  #stuckTombstones = new Set<ReplicaId>()
  /** When another host's operation was first seen. */
  readonly #firstSeen = new Map<string, Millis>()
  #warnings: string[] = []
  #timer: Timer | null = null
  #round: Promise<void> = Promise.resolve()
  #running = false
  #rounds = 0
  #closed = false

  constructor(options: JanitorOptions) {
    this.#options = options
    this.#staleVolumes = new StaleVolumes(options.context, options.log)
  }

  /** Files on this host that no record knows: kept, and for the administrator to look at. */
  get warnings(): readonly string[] {
    return this.#warnings
  }

  start(): void {
    this.#schedule(millis(0))
  }

  /** Told of every change of the catalogue, so that the rounds need not look through all volumes. */
  noticed(keys: readonly string[]): void {
    const parsed = keys.map(parseKey)
    for (const key of parsed) {
      if (key.kind === 'volume-state') this.#halfDone?.set(key.volume, key.sr)
    }
    // Space is wanted back soon.
    if (parsed.some(({ kind }) => kind === 'tombstone')) this.#schedule(millis(TOMBSTONE_DELAY_MS))
  }

  /** Ends after the round under way. */
  async close(): Promise<void> {
    this.#closed = true
    this.#timer?.cancel()
    await this.#round
  }

  /**
   * Deletes the replicas on this host that tombstones name, and the tombstones with them. One that cannot be carried
   * out, say because its store is missing, holds up no other.
   *
   * @param atMost how many
   * @throws the first error, after the others were tried
   */
  async carryOutTombstones(atMost: number): Promise<void> {
    const { context } = this.#options
    const due = context.metadata
      .tombstones(context.host)
      .filter(({ record }) => !context.replicasInTheMaking.has(record.replica))
    const failures: unknown[] = []
    for (const { sr, record } of this.#inTurn(due).slice(0, atMost)) {
      this.#stuckTombstones.delete(record.replica)
      try {
        await this.#carryOut(sr, record)
      } catch (error) {
        this.#stuckTombstones.add(record.replica)
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  }

  /** Those that have not failed yet first, then the one that failed longest ago. */
  #inTurn<Tombstone extends { readonly record: TombstoneRecord }>(due: readonly Tombstone[]): Tombstone[] {
    const byReplica = new Map(due.map(tombstone => [tombstone.record.replica, tombstone]))
    const stuck = [...this.#stuckTombstones].filter(replica => byReplica.has(replica))
    this.#stuckTombstones = new Set(stuck)
    const fresh = due.filter(({ record }) => !this.#stuckTombstones.has(record.replica))
    return [...fresh, ...stuck.map(replica => byReplica.get(replica)!)]
  }

  async #carryOut(sr: SrId, { volume, replica }: TombstoneRecord): Promise<void> {
    const { context, log } = this.#options
    if (isInUse(context.metadata, sr, volume, replica)) {
      const event = 'a tombstone names a replica that is in use; it is not carried out'
      log.error(event, { volume, replica })
      return
    }
    const deadline = this.#deadline('deleting a replica')
    // This copy of the metadata may be behind: the replica may have become part of the volume meanwhile, or be about to.
    const isGone = context.metadata.volume(sr, volume) === null
    if (!isGone && !(await this.#claim(tombstoneKey(sr, replica), deadline))) return
    await context.datapath.call('replica.delete', { sr, volume, replica }, deadline.remainingMs())
    await update(
      context,
      tombstoneKey(sr, replica),
      entry => (entry === null ? 'unchanged' : { value: null }),
      deadline.at
    )
  }

  /**
   * Makes sure that a tombstone still stands, and gives it a new revision: who makes a replica part of a volume does so
   * on the condition that its tombstone has the revision that it had.
   * @returns false when there is none any more
   */
  async #claim(key: string, deadline: Deadline): Promise<boolean> {
    let isClaimed = false
    await update(
      this.#options.context,
      key,
      entry => {
        if (entry === null || isClaimed) return 'unchanged'
        isClaimed = true
        return { value: entry.value }
      },
      deadline.at
    )
    return isClaimed
  }

  /** Sets the time of the next round; nothing while one is under way, which sets it at its end. */
  #schedule(delayMs: Millis): void {
    if (this.#closed || this.#running) return
    this.#timer?.cancel()
    this.#timer = this.#options.context.clock.after(delayMs, () => {
      this.#running = true
      this.#round = this.#runRound().finally(() => {
        this.#running = false
        this.#schedule(this.#options.intervalMs)
      })
    })
  }

  async #runRound(): Promise<void> {
    this.#rounds += 1
    await this.#attempt('the datapath processes could not be checked', this.#options.reconcile)
    await this.#attempt('tombstones could not be carried out', () =>
      this.carryOutTombstones(TOMBSTONES_PER_ROUND)
    )
    await this.#attempt('half-done SRs could not be cleared up', () => this.#endSrs())
    await this.#attempt('half-done volumes could not be cleared up', () => this.#endVolumes())
    await this.#attempt('stale replicas could not be brought up to date', () => this.#staleVolumes.resync())
    await this.#attempt('the space of stores could not be reported', () => this.#reportSpace())
    if (this.#rounds % ROUNDS_PER_LOOK === 1) {
      await this.#attempt('stores could not be looked through', () => this.#lookForUnknownFiles())
    }
  }

  async #attempt(trouble: string, task: () => Promise<void>): Promise<void> {
    if (this.#closed) return
    try {
      await task()
    } catch (error) {
      this.#options.log.warn(trouble, { reason: reasonOf(error) })
    }
  }

  async #endSrs(): Promise<void> {
    const { context, log } = this.#options
    for (const { sr, operation } of context.metadata.halfDoneSrs()) {
      if (operation === undefined) continue
      await this.#attempt(`SR ${sr}, left half-done, could not be cleared up`, async () => {
        if (!(await this.#isAbandoned(operation))) return
        log.info('an SR was left half-done; it is removed', { sr, operation: operation.kind })
        await removeSr(context, sr, this.#deadline('removing an SR'))
      })
    }
  }

  async #endVolumes(): Promise<void> {
    this.#halfDone ??= this.#halfDoneVolumes()
    for (const [key, sr] of this.#halfDone) {
      // One whose record cannot be read, or that cannot be ended now, keeps no other from its end.
      await this.#attempt(`volume ${key}, left half-done, could not be cleared up`, () => this.#end(sr, key))
    }
  }

  async #end(sr: SrId, key: VolumeKey): Promise<void> {
    const { context, log } = this.#options
    const operation = context.metadata.volume(sr, key)?.state.operation
    if (operation === undefined) {
      this.#halfDone?.delete(key)
      return
    }
    if (!(await this.#isAbandoned(operation))) return
    log.info('a volume was left half-done; it is removed', { sr, volume: key, operation: operation.kind })
    await removeVolume(
      context,
      sr,
      key,
      current => {
        if (current.operation?.id !== operation.id) throw new Error('it has changed meanwhile')
      },
      this.#deadline('removing a volume')
    )
  }

  #halfDoneVolumes(): Map<VolumeKey, SrId> {
    return new Map(this.#options.context.metadata.halfDoneVolumes().map(({ key, sr }) => [key, sr]))
  }

  /**
   * Whether nobody is at an operation any more. For one of this host that is known at once; for another's it takes
   * patience, since ending what is still under way would fail somebody's call, though it would break nothing.
   */
  async #isAbandoned({ host, id }: Operation): Promise<boolean> {
    const { context } = this.#options
    if (host === context.host) return !context.operations.isUnderWay(id)
    const now = context.clock.now()
    const firstSeen = this.#firstSeen.get(id) ?? now
    this.#firstSeen.set(id, firstSeen)
    if (now - firstSeen < PATIENCE_MS) return false
    try {
      const { atWork } = await context.agent(host).peer('host.isAtWork', { operation: id }, 3000)
      return !atWork
    } catch {
      return true
    }
  }

  async #reportSpace(): Promise<void> {
    const { context, stores } = this.#options
    for (const { sr, store } of await stores.attached()) {
      const record = context.metadata.stores(sr).find(({ host }) => host === context.host)
      if (record?.store !== store) continue
      const space = await stores.space(sr, store)
      const { total, free } = record.space
      if (total === space.total && Math.abs(free - space.free) < SPACE_CHANGE * space.total) continue
      await update(
        context,
        storeKey(sr, context.host),
        entry =>
          entry === null
            ? 'unchanged'
            : {
                value: serialiseStoreRecord(entry.key, {
                  ...parseStoreRecord(entry.key, entry.value),
                  space,
                }),
              },
        this.#deadline('reporting space').at
      )
    }
  }

  async #lookForUnknownFiles(): Promise<void> {
    const { context, stores } = this.#options
    const warnings: string[] = []
    const doomed = new Set(context.metadata.tombstones(context.host).map(({ record }) => record.volume))
    for (const { sr, directory } of await stores.attached()) {
      const names = await stores.volumeNames(directory)
      for (const name of names) {
        const volume = name as VolumeKey
        const isHere = context.metadata
          .volume(sr, volume)
          ?.state.mirrors.flat()
          .some(({ host }) => host === context.host)
        if (isHere === true || doomed.has(volume)) continue
        warnings.push(`${join(directory, 'volumes', name)} belongs to no volume of this host; it is kept.`)
      }
    }
    this.#warnings = warnings
  }

  #deadline(what: string): Deadline {
    return new Deadline(this.#options.context.clock, what, TASK_MS)
  }
}

function isInUse(metadata: Metadata, sr: SrId, volume: VolumeKey, replica: string): boolean {
  const state = metadata.volume(sr, volume)?.state
  return state?.mirrors.flat().some(candidate => candidate.replica === replica) ?? false
}
