import { hasCode, reasonOf, XosanError } from '../../core/errors.ts'
import {
  type AcceptAnswer,
  type AcceptRequest,
  type ClearRequest,
  type ConfirmRequest,
  type EpochAnswer,
  type FinishRequest,
  type Heartbeat,
  type HeartbeatAnswer,
  type RaiseRequest,
  type ReplicaAddress,
  type SessionName,
} from '../../core/mirror/messages.ts'
import { PromiseGiver } from '../../core/mirror/promise.ts'
import { type RegionSet } from '../../core/mirror/region-set.ts'
import { type MirrorTiming } from '../../core/mirror/timing.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { type Disk } from '../../core/ports/disk.ts'
import { type ProcessIdentity } from '../../core/mirror/messages.ts'
import {
  type Epoch,
  type Incarnation,
  type Millis,
  type RegionIndex,
  type ReplicaId,
  type SrId,
  type StoreId,
  type VolumeKey,
} from '../../core/units.ts'
import { type BlockDevice } from '../block-device.ts'
import { type CreatedReplica, type ReplicaSession } from '../mirror/replica-peer.ts'
import { BoundedTurn } from '../replica-local/bounded-turn.ts'
import { LocalReplica } from '../replica-local/local-replica.ts'
import { ReplicaService, type ReplicaServiceContext } from '../replica-local/replica-service.ts'
import { Admissions } from './admissions.ts'
import { within } from '../mirror/within.ts'

/** How long somebody waits for the files of a replica to be opened. */
type Patience = 'a call' | 'for ever'

/** One store of this host, found by its id on the file system that holds it. */
export interface Store {
  readonly id: StoreId
  readonly disk: Disk
}

export interface ReplicaHostOptions {
  readonly identity: ProcessIdentity
  readonly clock: Clock
  readonly timing: MirrorTiming
  /** The store of an SR on this host. @throws STORE_MISSING when it is not there now */
  readonly store: (sr: SrId) => Promise<Store>
  /** Whether this very process is the primary of a volume, as far as it knows. */
  readonly isServing: (volume: VolumeKey) => boolean
}

/** What making a replica may be told beside what it is to be. */
interface CreateOptions {
  /** Id of the store that it must be in, where the caller knows it. */
  readonly expected?: StoreId
  /** Asked when nothing else is under way at the volume's files, before anything is made; what it throws is the answer. */
  readonly allow?: () => Promise<void>
  /** A replica that it takes the place of: what is left of that is removed if it cannot be opened any more. */
  readonly lost?: ReplicaId
}

/** A disk that failed may be well again; what is damaged stays so. */
const isToBeOpenedAnew = ({ replica: { failure } }: ReplicaService): boolean =>
  failure !== undefined && failure.code !== 'REPLICA_CORRUPT'

/** How long making a replica, which reserves space for its maps, may keep its caller waiting, in milliseconds. */
const CREATE_MS = 30_000 as Millis

/**
 * The replicas that one datapath process serves, to itself and to its peers. A disk may hang; whoever asks for
 * something hears of it in the time of a call (REPLICA_BUSY), and what was begun goes on.
 */
export class ReplicaHost {
  readonly #options: ReplicaHostOptions
  readonly #context: ReplicaServiceContext
  readonly #promises: PromiseGiver
  readonly #open = new Map<VolumeKey, ReplicaService>()
  readonly #admissions: Admissions
  #closed = false
  /** Replicas whose disk failed and that were not opened again yet: when they may have lost writes. */
  readonly #lostAt = new Map<VolumeKey, Epoch | null>()
  /** Opening, making and deleting of one volume's files come one after the other. */
  readonly #turns = new Map<VolumeKey, BoundedTurn>()

  constructor(options: ReplicaHostOptions) {
    const { identity, clock, timing } = options
    this.#options = options
    this.#promises = new PromiseGiver(timing.promiseTimeMs)
    this.#admissions = new Admissions(clock, timing)
    const isServing = options.isServing
    this.#context = { identity, clock, timing, promises: this.#promises, startedAt: clock.now(), isServing }
  }

  heartbeat({ from, echo }: Heartbeat): HeartbeatAnswer {
    const { identity, clock } = this.#options
    return { identity, ...this.#promises.heartbeat(from.incarnation, echo, clock.now()) }
  }

  /**
   * Gives an epoch to who asks for it, or refuses; answers in time for one call, at worst that it is about to. The
   * request then goes on by itself.
   */
  async accept(request: AcceptRequest): Promise<AcceptAnswer> {
    const { address } = request
    const open = (): ReplicaService | undefined => this.#open.get(address.volume)
    const refusal = open()?.refusalOf(request) ?? null
    if (refusal !== null) return refusal
    return this.#admissions.answer(
      request,
      // Carried out to its end, however long the files take to be opened.
      async () => this.#answer(address, async service => service.accept(request), 'for ever'),
      () => ({
        kind: 'preparing',
        identity: this.#options.identity,
        reason: open()?.doing ?? this.#turns.get(address.volume)?.doing ?? 'it is being opened',
      })
    )
  }

  /** @throws REPLICA_BUSY */
  async confirm(request: ConfirmRequest): Promise<EpochAnswer> {
    return this.#answer(request.address, async service => service.confirm(request))
  }

  /** @throws REPLICA_BUSY */
  async raise(request: RaiseRequest): Promise<EpochAnswer> {
    return this.#answer(request.address, async service => service.raise(request))
  }

  /** @throws EPOCH_STALE, SESSION_STALE, REPLICA_GONE, DISK_FAILED, REPLICA_BUSY */
  async openSession(name: SessionName): Promise<ReplicaSession> {
    return (await this.#service(name.address)).openSession(name)
  }

  async intents(name: SessionName): Promise<RegionSet> {
    return (await this.#service(name.address)).intents(name)
  }

  /** @throws EPOCH_STALE, SESSION_STALE, REPLICA_GONE, DISK_FAILED, REPLICA_BUSY, OUT_OF_RANGE */
  async digests(name: SessionName, region: RegionIndex): Promise<Uint8Array | null> {
    return this.#inTime(name.address.volume, async () =>
      (await this.#service(name.address)).digests(name, region)
    )
  }

  async clear(request: ClearRequest): Promise<void> {
    const { volume } = request.name.address
    await this.#inTime(volume, async () => (await this.#service(request.name.address)).clear(request))
  }

  async finish(request: FinishRequest): Promise<void> {
    await (await this.#service(request.name.address)).finish(request)
  }

  /**
   * Makes a replica; durable when it returns. Idempotent for one replica id.
   *
   * @param blank the volume is certain to be empty everywhere; else all intents are set, so that whoever brings the
   * replica up to date copies all of it
   * @returns the id of the store that it is in, and of the replica: another one than asked for when one was left here
   * by an attempt that came to nothing
   * @throws STORE_MISSING, REPLICA_PRESENT, NO_SPACE, DISK_FAILED, REPLICA_BUSY
   */
  async create(
    address: Omit<ReplicaAddress, 'store'>,
    blank: boolean,
    { expected, allow, lost }: CreateOptions = {}
  ): Promise<CreatedReplica> {
    const { sr, volume, replica, layers, size } = address
    const make = async (): Promise<CreatedReplica> => {
      await allow?.()
      const { id: store, disk } = await this.#options.store(sr)
      if (expected !== undefined && expected !== store) {
        throw new XosanError('STORE_MISSING', { sr, path: expected, reason: `the store here is ${store}` })
      }
      const open = this.#open.get(volume)?.replica
      if (open?.replica === replica) return { store, replica }
      if (blank) {
        await LocalReplica.create(disk, { volume, replica, store, layers, size })
        return { store, replica }
      }
      const spec = { volume, replica, store, layers, size }
      await LocalReplica.create(disk, spec).catch(async (error: unknown) => {
        const isPresent = hasCode(error, 'REPLICA_PRESENT')
        if (!isPresent && !hasCode(error, 'REPLICA_CORRUPT')) throw error
        if (lost !== undefined && (await this.#discard(disk, volume, lost))) {
          await LocalReplica.create(disk, spec)
        } else if (!isPresent) throw error
      })
      return { store, replica: await this.#markForFullCopy(disk, volume, replica) }
    }
    return this.#turn(volume).run('a replica is being made', make, CREATE_MS)
  }

  /**
   * Removes what is left of a replica that is lost. One that can be opened is left alone: whoever calls it lost may be
   * wrong about that.
   * @returns whether there is room for another one
   */
  async #discard(disk: Disk, volume: VolumeKey, lost: ReplicaId): Promise<boolean> {
    const service = this.#open.get(volume)
    // Damage that was found when it was used is not seen when it is opened.
    const isDamaged = service?.replica.replica === lost && hasCode(service.replica.failure, 'REPLICA_CORRUPT')
    this.#open.delete(volume)
    await service?.close()
    if (!isDamaged && (await this.#canBeOpened(disk, volume))) return false
    await LocalReplica.discard(disk, volume, lost)
    return true
  }

  async #canBeOpened(disk: Disk, volume: VolumeKey): Promise<boolean> {
    try {
      await (await LocalReplica.open(disk, volume, this.#options.identity.boot)).close()
      return true
    } catch (error) {
      if (hasCode(error, 'REPLICA_GONE') || hasCode(error, 'REPLICA_CORRUPT')) return false
      throw error
    }
  }

  /**
   * Sets all intents of the replica that is there. If that is not the one that was asked for, it is one whose creation
   * was not recorded: nobody ever gave it an epoch, so it holds nothing, and it may serve as well.
   * @throws REPLICA_PRESENT when it was in use once: then an administrator has to look at it
   */
  async #markForFullCopy(disk: Disk, volume: VolumeKey, wanted: ReplicaId): Promise<ReplicaId> {
    const service = this.#open.get(volume)
    this.#open.delete(volume)
    await service?.close()
    const made = await LocalReplica.open(disk, volume, this.#options.identity.boot)
    try {
      if (made.replica !== wanted && made.acceptedEpoch > 0) {
        throw new XosanError('REPLICA_PRESENT', { volume, replica: wanted, present: made.replica })
      }
      await made.markAllIntents()
      return made.replica
    } finally {
      await made.close()
    }
  }

  /** Removes a replica's files if they are of this replica id; else does nothing. @throws REPLICA_BUSY, DISK_FAILED */
  async delete(sr: SrId, volume: VolumeKey, replica: ReplicaId): Promise<void> {
    const remove = async (): Promise<void> => {
      const { disk } = await this.#options.store(sr)
      const service = this.#open.get(volume)
      if (service !== undefined) {
        if (service.replica.replica !== replica) return
        this.#open.delete(volume)
        await service.close()
      }
      await LocalReplica.remove(disk, volume, replica).catch((error: unknown) => {
        // Another replica of the volume has taken the place: this one is gone already.
        if (!hasCode(error, 'REPLICA_PRESENT')) throw error
      })
    }
    await this.#turn(volume).run('it is being deleted', remove, CREATE_MS)
  }

  /**
   * Space that the replica of a volume takes, in bytes.
   * @throws REPLICA_GONE, STORE_MISSING, DISK_FAILED, REPLICA_BUSY
   */
  async physicalBytes(sr: SrId, volume: VolumeKey): Promise<number> {
    return this.#inTime(volume, async () => (await this.#openReplica(sr, volume)).replica.physicalBytes())
  }

  /**
   * The replica of a volume for who only reads, beside all sessions.
   * @throws REPLICA_GONE, STORE_MISSING, DISK_FAILED, REPLICA_BUSY
   */
  async reader(sr: SrId, volume: VolumeKey): Promise<BlockDevice> {
    return (await this.#openReplica(sr, volume)).replica
  }

  /** The write intents of a replica that is open; null when it is not. */
  intentsOf(volume: VolumeKey): RegionSet | null {
    return this.#open.get(volume)?.replica.intents ?? null
  }

  /** The process that the replica of a volume has accepted; null while it knows of none. */
  holderOf(volume: VolumeKey): { readonly incarnation: Incarnation; readonly inSession: boolean } | null {
    const { holder = null, inSession = false } = this.#open.get(volume) ?? {}
    return holder === null ? null : { incarnation: holder.incarnation, inSession }
  }

  /** Ends all sessions and releases all files; nothing is opened any more. Resolves when all disks have answered. */
  async close(): Promise<void> {
    this.#closed = true
    const services = [...this.#open.values()]
    this.#open.clear()
    await Promise.all(services.map(async service => service.close()))
  }

  async #answer<Answer>(
    address: ReplicaAddress,
    action: (service: ReplicaService) => Promise<Answer>,
    patience: Patience = 'a call'
  ): Promise<Answer | { kind: 'gone' | 'failed'; identity: ProcessIdentity; reason: string }> {
    const { identity } = this.#options
    try {
      return await action(await this.#service(address, patience))
    } catch (error) {
      // It may be all right in a moment: whoever asks is to ask again.
      if (hasCode(error, 'REPLICA_BUSY')) throw error
      // One that is damaged is as good as none: its host gets another one.
      const isGone = hasCode(error, 'REPLICA_GONE') || hasCode(error, 'REPLICA_CORRUPT')
      if (isGone) return { kind: 'gone', identity, reason: reasonOf(error) }
      // A store that is not mounted may come back as it was: it is not replaced, only not used.
      return { kind: 'failed', identity, reason: reasonOf(error) }
    }
  }

  async #service({ sr, volume }: ReplicaAddress, patience?: Patience): Promise<ReplicaService> {
    return this.#openReplica(sr, volume, patience)
  }

  async #openReplica(sr: SrId, volume: VolumeKey, patience: Patience = 'a call'): Promise<ReplicaService> {
    const open = this.#open.get(volume)
    if (open !== undefined && !isToBeOpenedAnew(open)) return open
    const openFiles = async (): Promise<ReplicaService> => {
      if (this.#closed)
        throw new XosanError('STORE_MISSING', { sr, path: '', reason: 'this process is ending' })
      const opened = this.#open.get(volume)
      let { startedAt } = this.#context
      if (opened !== undefined) {
        if (!isToBeOpenedAnew(opened)) return opened
        this.#open.delete(volume)
        this.#lostAt.set(volume, opened.replica.lostAt)
        await opened.close().catch(() => undefined)
        // What it has promised is forgotten with it, as when a process starts.
        startedAt = this.#options.clock.now()
      }
      const { disk } = await this.#options.store(sr)
      // What the disk refused to note is known here as long as this process lives.
      const lostAt = this.#lostAt.get(volume)
      const replica = await LocalReplica.open(disk, volume, this.#options.identity.boot, lostAt)
      this.#lostAt.delete(volume)
      const service = new ReplicaService(replica, { ...this.#context, startedAt })
      this.#open.set(volume, service)
      return service
    }
    const patienceMs = patience === 'a call' ? this.#options.timing.callTimeoutMs : undefined
    return this.#turn(volume).run('it is being opened', openFiles, patienceMs)
  }

  /** @throws REPLICA_BUSY when an action takes longer than a call; it goes on */
  async #inTime<Result>(volume: VolumeKey, action: () => Promise<Result>): Promise<Result> {
    const { clock, timing } = this.#options
    const busy = (): XosanError =>
      new XosanError('REPLICA_BUSY', {
        volume,
        reason: this.#open.get(volume)?.doing ?? 'it is being opened',
      })
    return within(clock, timing.callTimeoutMs, busy, action())
  }

  #turn(volume: VolumeKey): BoundedTurn {
    let turn = this.#turns.get(volume)
    if (turn === undefined) {
      turn = new BoundedTurn(this.#options.clock, volume)
      this.#turns.set(volume, turn)
    }
    return turn
  }
}
