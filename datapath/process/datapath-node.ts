/**
 * One datapath process without its sockets: the volumes that it serves to guests, and the replicas that it serves to
 * its peers. Everything outside comes in through ports, so that the simulator runs this very code.
 */
import { parseKey, SRS_PREFIX, volumeStateKey } from '../../cluster/keys.ts'
import { parseVolumeState } from '../../cluster/volume-state.ts'
import { hasCode, reasonOf, XosanError } from '../../core/errors.ts'
import { DEFAULT_BATCHES } from '../../core/mirror/batches.ts'
import { type ProcessIdentity, type Purpose, type ReplicaAddress } from '../../core/mirror/messages.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { pause } from '../../core/ports/clock.ts'
import { type Millis, type SrId, type StoreId, type VolumeKey } from '../../core/units.ts'
import { RecordStore } from '../mirror/record-store.ts'
import { type ReplicaPeer } from '../mirror/replica-peer.ts'
import { Mutex } from '../mirror/signal.ts'
import { VolumeMirror } from '../mirror/volume-mirror.ts'
import { type Attachment } from './attachments.ts'
import { type DatapathNodeOptions } from './datapath-node-options.ts'
import { GuestDevice } from './guest-device.ts'
import { localPeer } from './local-peer.ts'
import { untilInSync } from './maintenance.ts'
import { PeerProcess, type PeerTransport } from './peer-process.ts'
import { ReplicaHost } from './replica-host.ts'
import { type ServedVolume, servedOf, Volume } from './volume.ts'
import { requireWanted } from './wanted-replica.ts'
import { within } from '../mirror/within.ts'

export class DatapathNode {
  readonly replicas: ReplicaHost
  readonly #options: DatapathNodeOptions
  readonly #volumes = new Map<VolumeKey, Volume>()
  readonly #peers = new Map<PeerTransport, PeerProcess>()
  readonly #local: ReplicaPeer
  readonly #saving = new Mutex()
  #activated = new Set<VolumeKey>()
  /** What an earlier process had attached and this one could not attach yet. */
  readonly #remembered = new Map<VolumeKey, Attachment>()
  /** Volumes that are being closed because nobody has them. */
  readonly #leftovers = new Set<VolumeKey>()
  #stopping = false

  constructor(options: DatapathNodeOptions) {
    this.#options = options
    const isServing = (key: VolumeKey): boolean => {
      const mirror = this.#volumes.get(key)?.mirror ?? null
      return mirror !== null && mirror.holdsRight
    }
    this.replicas = new ReplicaHost({ ...options, isServing })
    const { identity, clock, timing } = options
    this.#local = localPeer({ host: this.replicas, incarnation: identity.incarnation, clock, timing })
  }

  get identity(): ProcessIdentity {
    return this.#options.identity
  }

  /** The volumes that are attached or open here. */
  volumes(): ServedVolume[] {
    return [...this.#volumes.values()].map(servedOf)
  }

  volume(key: VolumeKey): ServedVolume | null {
    const volume = this.#volumes.get(key)
    return volume === undefined ? null : servedOf(volume)
  }

  /**
   * Takes up what an earlier process of this host left: volumes that were attached are attached again, activated ones
   * are opened again, and any other whose record still names this host is opened and closed in order.
   * Resolves when it is known what that is; to be called before anybody else attaches.
   *
   * @param attached told of each device that is there again
   */
  async start(attached: (volume: VolumeKey, device: GuestDevice) => void = () => undefined): Promise<void> {
    for (const attachment of await this.#options.attachments.load()) {
      this.#remembered.set(attachment.volume, attachment)
      if (attachment.activated) this.#activated.add(attachment.volume)
      void this.#attachAgain(attachment, attached)
    }
    void this.#takeUp()
  }

  /** Goes on until it succeeds: without the coordinator a volume's size is not known, and the guest waits. */
  async #attachAgain(
    { sr, volume }: Attachment,
    attached: (volume: VolumeKey, device: GuestDevice) => void
  ): Promise<void> {
    const { clock, timing, log } = this.#options
    while (this.#remembered.has(volume)) {
      try {
        attached(volume, await this.attach(sr, volume))
        return
      } catch (error) {
        log('attaching again failed', { volume, reason: reasonOf(error) })
        if (hasCode(error, 'VOLUME_NOT_FOUND')) this.#remembered.delete(volume)
        else await pause(clock, timing.rejoinIntervalMs)
      }
    }
  }

  async #takeUp(): Promise<void> {
    const { coordinator, isOurs, clock, timing, log } = this.#options
    let told = ''
    for (;;) {
      try {
        const { entries } = await coordinator.list(SRS_PREFIX)
        for (const { key, value } of entries) {
          const parsed = parseKey(key)
          if (parsed.kind !== 'volume-state' || !isOurs(parsed.volume)) continue
          try {
            this.#takeUpVolume(parsed.sr, parsed.volume, parseVolumeState(key, value))
          } catch (error) {
            log('a record cannot be understood now', { key, reason: reasonOf(error) })
            void this.#takeUpLater(parsed.sr, parsed.volume)
          }
        }
        return
      } catch (error) {
        const reason = reasonOf(error)
        // A host that is in no SR, or whose coordinator is away, says so once and not twice a second.
        if (reason !== told) log('taking up volumes waits', { reason })
        told = reason
        await pause(clock, timing.rejoinIntervalMs)
      }
    }
  }

  #takeUpVolume(sr: SrId, key: VolumeKey, state: VolumeState): void {
    if (this.#activated.has(key)) this.#resume(sr, key, state)
    else if (state.primary === this.identity.host) void this.#closeLeftover(sr, key)
  }

  /** Looks again at a volume whose record could not be understood, or that could not be opened, until it can be. */
  async #takeUpLater(sr: SrId, key: VolumeKey): Promise<void> {
    const { clock, timing } = this.#options
    for (;;) {
      await pause(clock, timing.rejoinIntervalMs)
      if (this.#stopping) return
      try {
        this.#takeUpVolume(sr, key, await this.#readState(sr, key))
        return
      } catch (error) {
        if (hasCode(error, 'VOLUME_NOT_FOUND')) return
      }
    }
  }

  /** The guest of a volume that was activated here is still there and waits; unless it has moved on meanwhile. */
  #resume(sr: SrId, key: VolumeKey, state: VolumeState): void {
    // Closed now, but last given to another host: the guest has been there since.
    if (state.primary !== this.identity.host && state.reserved.host !== this.identity.host) {
      this.#activated.delete(key)
      this.#options.log('not taken up: another host had it since', { volume: key })
      return
    }
    const volume = this.#entry(sr, key)
    void this.#inTurn(volume, async () => {
      if (volume.mirror !== null || !this.#activated.has(key)) return
      await this.#open(volume, 'guest', Number.POSITIVE_INFINITY as Millis, true)
    }).catch((error: unknown) => {
      this.#options.log('opening again failed', { volume: key, reason: reasonOf(error) })
      if (this.#activated.has(key)) void this.#takeUpLater(sr, key)
    })
  }

  /**
   * Opens a volume and closes it in order that nobody has although its record names this host: an earlier process had it,
   * and has left it, or could not take it up before its guest was given up. Goes on until that is done or somebody has it.
   */
  async #closeLeftover(sr: SrId, key: VolumeKey): Promise<void> {
    const { clock, timing, log } = this.#options
    if (this.#leftovers.has(key)) return
    this.#leftovers.add(key)
    try {
      while (await this.#isLeftover(sr, key)) {
        const volume = this.#entry(sr, key)
        await this.#inTurn(volume, async () => {
          if (volume.mirror !== null) return
          // An ordinary opening first: nobody else may have the volume meanwhile. A guest's activation ends it.
          await this.#open(volume, 'maintenance', Number.POSITIVE_INFINITY as Millis)
          await this.#closeMirror(volume, (timing.promiseTimeMs * 10) as Millis)
        }).catch((error: unknown) =>
          log('closing a volume that was left open failed', { volume: key, reason: reasonOf(error) })
        )
        await pause(clock, timing.rejoinIntervalMs)
      }
    } catch (error) {
      log('closing a volume that was left open failed', { volume: key, reason: reasonOf(error) })
    } finally {
      this.#leftovers.delete(key)
    }
  }

  /** Waits while the coordinator is away, or the record cannot be understood. */
  async #isLeftover(sr: SrId, key: VolumeKey): Promise<boolean> {
    const { clock, timing, identity } = this.#options
    for (;;) {
      try {
        const { primary } = await this.#readState(sr, key)
        const isOpen = (this.#volumes.get(key)?.mirror ?? null) !== null
        return primary === identity.host && !isOpen && !this.#activated.has(key) && !this.#stopping
      } catch (error) {
        if (hasCode(error, 'VOLUME_NOT_FOUND')) return false
        const mayPass = hasCode(error, 'COORDINATOR_UNAVAILABLE') || hasCode(error, 'RECORD_INVALID')
        if (!mayPass) throw error
        await pause(clock, timing.rejoinIntervalMs)
      }
    }
  }

  // -- what xosand asks ---------------------------------------------------------------------------------------------

  /** Makes the guest's device. @throws VOLUME_NOT_FOUND, COORDINATOR_UNAVAILABLE */
  async attach(sr: SrId, key: VolumeKey): Promise<GuestDevice> {
    const volume = this.#entry(sr, key)
    this.#makeWay(volume)
    return this.#inTurn(volume, async () => {
      if (volume.device === null) {
        const { size } = await this.#readState(sr, key)
        volume.device = new GuestDevice(size)
        try {
          await this.#save()
        } catch (error) {
          // Asked again, it must not look as if it had been noted.
          volume.device = null
          throw error
        }
        this.#remembered.delete(key)
        const { mirror } = volume
        volume.device.serve(volume.purpose === 'guest' && mirror?.ending === false ? mirror : null)
      }
      return volume.device
    })
  }

  /** Makes the replica of a new volume, while it is wanted. @throws as `requireWanted` and `ReplicaHost.create` */
  async makeReplica(address: Omit<ReplicaAddress, 'store'>, store: StoreId): Promise<void> {
    const allow = async (): Promise<void> => requireWanted(this.#options.coordinator, address)
    await this.replicas.create(address, true, { expected: store, allow })
  }

  /**
   * Becomes the primary for a guest.
   * @param deadlineMs how long it may take from now, in milliseconds
   * @throws ACTIVATED_ON_ANOTHER_HOST, NO_REPLICA_REACHABLE, VOLUME_NOT_FOUND; DEADLINE_EXCEEDED when it is this
   * host's already and only waits for its replicas. After an error the volume is not active here, or will not be as
   * soon as that can be done; unless it was active here before: that is not changed by an error
   */
  async activate(sr: SrId, key: VolumeKey, deadlineMs: Millis): Promise<VolumeMirror> {
    const { clock } = this.#options
    const what = 'Activating the volume'
    const deadline = (clock.now() + deadlineMs) as Millis
    const volume = this.#entry(sr, key)
    const { mirror: before } = volume
    this.#makeWay(volume)
    // A guest that an earlier process served is there still, whether or not this call succeeds.
    const hasGuest = this.#activated.has(key) && before?.ending !== true
    let givenUp = false
    const opened = this.#inTurn(volume, async () => {
      const { mirror } = volume
      if (mirror !== null && (mirror.ending || volume.purpose === 'maintenance')) {
        await this.#closeMirror(volume, deadlineMs)
      }
      // The turn may have come long after the caller went.
      if (givenUp) throw new XosanError('DEADLINE_EXCEEDED', { what, deadlineMs })
      const resumed = mirror === null && this.#activated.has(key)
      if (volume.mirror === null) await this.#open(volume, 'guest', deadline, resumed)
      const serving = volume.mirror!
      // One that was told to end while it was opened never became active.
      if (!serving.ending && !this.#activated.has(key)) {
        this.#activated.add(key)
        try {
          await this.#save()
        } catch (error) {
          this.#takeBack(key, deadlineMs)
          throw error
        }
      }
      return serving
    })
    try {
      return await within(clock, deadlineMs, what, opened)
    } catch (error) {
      givenUp = true
      // The caller takes the volume for not active; an opening that succeeds later would contradict it.
      if (hasCode(error, 'DEADLINE_EXCEEDED') && !hasGuest) this.#takeBack(key, deadlineMs)
      throw error
    }
  }

  /** Ends an opening for maintenance, which may wait for replicas for ever, and holds the turn meanwhile. */
  #makeWay({ mirror, purpose }: Volume): void {
    if (mirror?.phase !== 'opening' || purpose !== 'maintenance') return
    void mirror.close(this.#options.timing.promiseTimeMs).catch(() => undefined)
  }

  /** The caller of an activation takes the volume for not active. */
  #takeBack(key: VolumeKey, deadlineMs: Millis): void {
    this.deactivate(key, deadlineMs).catch((reason: unknown) =>
      this.#options.log('taking back an activation waits', { volume: key, reason: reasonOf(reason) })
    )
  }

  /** Gives the right to write up. Idempotent. @throws DEADLINE_EXCEEDED: it goes on, and may be asked again */
  async deactivate(key: VolumeKey, deadlineMs: Millis): Promise<void> {
    const volume = this.#volumes.get(key)
    if (volume === undefined) return
    this.#activated.delete(key)
    const closing = this.#deactivate(volume, deadlineMs)
    await within(this.#options.clock, deadlineMs, 'Deactivating the volume', closing)
  }

  async #deactivate(volume: Volume, deadlineMs: Millis): Promise<void> {
    // An opening that waits for replicas holds the turn; it is told to end. Nothing is awaited before this has its place
    // in the order: an activation that is asked for from now on has the last word.
    const { mirror } = volume
    if (mirror?.phase === 'opening') void mirror.close(deadlineMs).catch(() => undefined)
    await this.#inTurn(volume, async () => {
      // An activation whose turn came in between has noted itself again.
      this.#activated.delete(volume.key)
      try {
        // First, because closing may take until the coordinator is back: a process that starts meanwhile must close the
        // volume and not go on with it.
        await this.#save()
      } finally {
        if (volume.purpose === 'guest') await this.#closeMirror(volume, deadlineMs)
      }
    })
  }

  /** Forgets the guest's device. Idempotent. */
  async detach(key: VolumeKey): Promise<void> {
    const volume = this.#volumes.get(key)
    if (this.#remembered.delete(key)) await this.#save()
    if (volume === undefined) return
    await this.#inTurn(volume, async () => {
      volume.device?.serve(null)
      volume.device = null
      await this.#save()
    })
  }

  /**
   * Brings stale replicas of a volume that nobody has open up to date, and closes it again. One that is open here does
   * so by itself. Returns at once.
   * @returns false when the volume is open here
   */
  resync(sr: SrId, key: VolumeKey): boolean {
    const volume = this.#entry(sr, key)
    if (volume.mirror !== null || volume.opening !== null) return false
    void this.#maintain(volume).catch((error: unknown) => {
      this.#options.log('resync ended', { volume: key, reason: reasonOf(error) })
    })
    return true
  }

  async #maintain(volume: Volume): Promise<void> {
    const { clock, timing } = this.#options
    const deadline = (clock.now() + timing.promiseTimeMs) as Millis
    await this.#inTurn(volume, async () => {
      if (volume.mirror === null) await this.#open(volume, 'maintenance', deadline)
    })
    const { mirror } = volume
    if (mirror === null || volume.purpose !== 'maintenance') return
    await untilInSync(mirror, clock, timing.rejoinIntervalMs, () => volume.mirror === mirror)
    await this.#inTurn(volume, async () => {
      if (volume.mirror === mirror && volume.purpose === 'maintenance') {
        await this.#closeMirror(volume, (timing.promiseTimeMs * 10) as Millis)
      }
    })
  }

  /**
   * Ends in order: every volume is closed and every file released.
   * @throws DEADLINE_EXCEEDED when a disk did not answer meanwhile
   */
  async stop(deadlineMs: Millis): Promise<void> {
    this.#stopping = true
    const closing = [...this.#volumes.values()].map(async volume => {
      volume.device?.serve(null)
      await volume.mirror?.close(deadlineMs).catch(() => undefined)
    })
    await Promise.all(closing)
    await within(this.#options.clock, deadlineMs, 'Closing the replicas', this.replicas.close())
  }

  // -- inner ----------------------------------------------------------------------------------------------------------

  async #open(volume: Volume, purpose: Purpose, deadline: Millis, resumed = false): Promise<void> {
    const { sr, key } = volume
    const { identity, coordinator, transport } = this.#options
    const mirror = new VolumeMirror({
      batches: DEFAULT_BATCHES,
      ...this.#options,
      sr,
      volume: key,
      purpose,
      resumed,
      records: new RecordStore(coordinator, sr, key),
      peer: host => (host === identity.host ? this.#local : this.#peer(transport(host, key))),
    })
    volume.mirror = mirror
    volume.purpose = purpose
    volume.opening = mirror.open(deadline)
    try {
      await volume.opening
      // What a mirror that is being closed takes it never answers.
      if (purpose === 'guest' && !mirror.ending) volume.device?.serve(mirror)
    } catch (error) {
      volume.mirror = null
      // Whoever waited for it has it no more; the record may name this host all the same, from an earlier opening.
      void this.#closeLeftover(sr, key)
      // The guest of before has no right to go on; one that is activated from now on is another.
      if (resumed && hasCode(error, 'ACTIVATED_ON_ANOTHER_HOST')) this.#activated.delete(key)
      throw error
    } finally {
      volume.opening = null
    }
  }

  async #closeMirror(volume: Volume, deadlineMs: Millis): Promise<void> {
    const { mirror } = volume
    if (mirror === null) return
    volume.device?.serve(null)
    try {
      await mirror.close(deadlineMs)
    } catch (error) {
      void this.#forgetWhenClosed(volume, mirror)
      throw error
    }
    volume.mirror = null
  }

  /** A mirror that was not closed in time goes on with it, and must not be taken for an open one when it is done. */
  async #forgetWhenClosed(volume: Volume, mirror: VolumeMirror): Promise<void> {
    while (mirror.phase !== 'closed') await mirror.changed()
    await this.#inTurn(volume, async () => {
      if (volume.mirror === mirror) volume.mirror = null
      return Promise.resolve()
    })
  }

  #peer(transport: PeerTransport): PeerProcess {
    let peer = this.#peers.get(transport)
    if (peer === undefined) {
      const { clock, identity, timing } = this.#options
      peer = new PeerProcess({ transport, clock, identity, heartbeatIntervalMs: timing.heartbeatIntervalMs })
      this.#peers.set(transport, peer)
    }
    return peer
  }

  async #readState(sr: SrId, volume: VolumeKey): Promise<VolumeState> {
    const key = volumeStateKey(sr, volume)
    const { entry } = await this.#options.coordinator.read(key)
    if (entry === null) throw new XosanError('VOLUME_NOT_FOUND', { volume, sr })
    return parseVolumeState(key, entry.value)
  }

  #entry(sr: SrId, key: VolumeKey): Volume {
    let volume = this.#volumes.get(key)
    if (volume === undefined) {
      volume = new Volume(sr, key)
      this.#volumes.set(key, volume)
    }
    return volume
  }

  /**
   * Runs an action on a volume after those that were asked for before. When nothing is left of the volume after it,
   * it is forgotten; not while others wait, which would work on a volume that nobody else sees.
   */
  async #inTurn<Result>(volume: Volume, action: () => Promise<Result>): Promise<Result> {
    volume.actions++
    try {
      return await volume.turn.run(action)
    } finally {
      volume.actions--
      const unused = volume.actions === 0 && volume.device === null && volume.mirror === null
      if (unused && this.#volumes.get(volume.key) === volume) this.#volumes.delete(volume.key)
    }
  }

  async #save(): Promise<void> {
    await this.#saving.run(async () => {
      const attachments = [...this.#volumes.values()]
        .filter(volume => volume.device !== null)
        .map(({ sr, key }) => ({ sr, volume: key, activated: this.#activated.has(key) }))
      const attached = new Set(attachments.map(({ volume }) => volume))
      const waiting = [...this.#remembered.values()]
        .filter(({ volume }) => !attached.has(volume))
        .map(({ sr, volume }) => ({ sr, volume, activated: this.#activated.has(volume) }))
      await this.#options.attachments.save([...attachments, ...waiting])
    })
  }
}
