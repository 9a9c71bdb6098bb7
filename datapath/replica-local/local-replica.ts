import { type RegionSet } from '../../core/mirror/region-set.ts'
import { hasCode, XosanError, reasonOf } from '../../core/errors.ts'
import { type Disk } from '../../core/ports/disk.ts'
import {
  byteLength,
  type BootId,
  type ByteLength,
  type ByteOffset,
  type Epoch,
  type LayerId,
  type ReplicaId,
  type StoreId,
  type VolumeKey,
} from '../../core/units.ts'
import {
  type BlockDevice,
  type Extent,
  FULL_CAPABILITIES,
  type TrimRequest,
  type WriteRequest,
  type ZeroRequest,
} from '../block-device.ts'
import { asXosanError, toXosanError } from './disk-errors.ts'
import { openLayerFiles } from './layer-files.ts'
import { Layer, type LayerOwner } from './layer.ts'
import {
  requireSize,
  createReplicaFiles,
  discardReplicaFiles,
  metadataPath,
  removeReplicaFiles,
  replicaDirectory,
  requireUuid,
  type ReplicaSpec,
} from './replica-directory.ts'
import { Operations } from './operations.ts'
import { MetadataFile, openLocked, type ReplicaMetadata } from './replica-metadata.ts'

/** What `acceptEpoch` is told beside the epoch. */
export interface AcceptOptions {
  /** The record at this epoch counts the replica as one to be brought up to date. */
  readonly rebuilding: boolean
}

/**
 * One host's copy of one volume, in a store. It is the only process on its files while it is open.
 *
 * It knows nothing of sessions and does not decide who may write; it keeps what it is told: the accepted epoch, the
 * write intents, and bytes. `docs/internals/replica-format.md` has the format and the order of writes.
 *
 * Changes that overlap each other have no order here: callers do not overlap them. Errors of single reads and writes
 * (DISK_FAILED, NO_SPACE) leave the replica open. After a failed sync or a failed write of a map nothing can be vouched
 * for any more: that call and all later ones fail with DISK_FAILED until the replica is opened anew, and then
 * `mayHaveLost` is true. When a map turns out to be damaged they fail with REPLICA_CORRUPT.
 */
export class LocalReplica implements BlockDevice {
  readonly capabilities = FULL_CAPABILITIES
  readonly #disk: Disk
  readonly #boot: BootId
  readonly #file: MetadataFile
  #layer!: Layer
  #lostAt: Epoch | null
  /** What was lost went with an earlier boot's page cache; nothing was in this one. */
  readonly #lostWithBoot: boolean
  /** The metadata say that the replica is open for changes in this boot. */
  #markedOpen = false
  #failure: XosanError | undefined
  #closing: Promise<void> | undefined
  readonly #operations = new Operations()
  /** Changes that wait for the mark that the replica is open; `markClean` must not wait for them. */
  readonly #unmarked = new Operations()
  /** The end of the last change of metadata; they come one after the other. */
  #metadataTurn: Promise<void> = Promise.resolve()

  private constructor(disk: Disk, boot: BootId, file: MetadataFile, knownLostAt: Epoch | null) {
    this.#disk = disk
    this.#boot = boot
    this.#file = file
    const { lostAt, clean, boot: lastBoot, acceptedEpoch } = file.metadata
    this.#lostAt = !clean && lastBoot !== boot ? acceptedEpoch : laterOf(lostAt, knownLostAt)
    this.#lostWithBoot = lastBoot !== boot && knownLostAt === null
  }

  /**
   * Makes a replica that reads as zeros; it is durable when this returns. Idempotent for one replica id, also after
   * a crash in the middle.
   * @throws REPLICA_PRESENT when another replica of the volume is here; REPLICA_LOCKED while another call or process
   * makes or removes one; INVALID_ARGUMENT; UNSUPPORTED; NO_SPACE; DISK_FAILED
   */
  static async create(disk: Disk, spec: ReplicaSpec): Promise<void> {
    await createReplicaFiles(disk, spec).catch(asXosanError(disk, replicaDirectory(spec.volume)))
  }

  /**
   * Removes a replica's files if they are of this replica id. Idempotent, also after a crash in the middle.
   * @throws REPLICA_PRESENT when another replica of the volume is here; REPLICA_LOCKED while it is open;
   * REPLICA_CORRUPT when the files do not say whose they are; DISK_FAILED
   */
  static async remove(disk: Disk, volume: VolumeKey, replica: ReplicaId): Promise<void> {
    await removeReplicaFiles(disk, volume, replica).catch(asXosanError(disk, replicaDirectory(volume)))
  }

  /**
   * Removes what is left of a replica that cannot be used any more: its own files, also damaged ones that do not say
   * whose they are, and those of a creation or removal that was not finished, whosever it was. Idempotent.
   * @throws as `remove`
   */
  static async discard(disk: Disk, volume: VolumeKey, lost: ReplicaId): Promise<void> {
    await discardReplicaFiles(disk, volume, lost).catch(asXosanError(disk, replicaDirectory(volume)))
  }

  /**
   * Opens a replica, and makes it whole when it was not closed clean.
   * @param boot id of the running kernel: whether un-flushed writes can still be there
   * @param knownLostAt `lostAt` of an earlier opening, which the disk may have refused to note
   * @throws REPLICA_GONE when it is missing, or a file of it is; REPLICA_LOCKED when another process has it open;
   * REPLICA_CORRUPT when it is damaged; UNSUPPORTED when a newer version wrote it, DISK_FAILED
   */
  static async open(
    disk: Disk,
    volume: VolumeKey,
    boot: BootId,
    knownLostAt: Epoch | null = null
  ): Promise<LocalReplica> {
    requireUuid('the boot id', boot)
    const path = metadataPath(volume)
    try {
      const file = await openLocked(disk, path, false)
      if (file === undefined) {
        throw new XosanError('REPLICA_GONE', { replica: '(any)', volume, reason: `there is no file ${path}` })
      }
      try {
        const replica = new LocalReplica(disk, boot, await MetadataFile.open(file, path), knownLostAt)
        await replica.#openLayer()
        return replica
      } catch (error) {
        await file.close()
        throw error
      }
    } catch (error) {
      return asXosanError(disk, path)(error)
    }
  }

  get volume(): VolumeKey {
    return this.#metadata.volume
  }

  get replica(): ReplicaId {
    return this.#metadata.replica
  }

  get store(): StoreId {
    return this.#metadata.store
  }

  /** Oldest first; the last one is written. */
  get layers(): readonly LayerId[] {
    return this.#metadata.layers
  }

  /** Virtual size in bytes; changes only by `resize`. */
  get size(): ByteLength {
    return this.#metadata.size
  }

  /** The highest epoch that was ever accepted; 0 before the first. */
  get acceptedEpoch(): Epoch {
    return this.#metadata.acceptedEpoch
  }

  /** What the record said at the accepted epoch. A hint: the record decides. */
  get state(): 'in-sync' | 'rebuilding' {
    return this.#metadata.rebuilding ? 'rebuilding' : 'in-sync'
  }

  /**
   * Un-flushed writes may be lost: the kernel rebooted without a clean close, or a sync failed. True until
   * `clearLost`, also across closes.
   */
  get mayHaveLost(): boolean {
    return this.#lostAt !== null
  }

  /**
   * Whether a flush makes durable whatever reads return. After a failed sync of this boot the kernel may hold pages that
   * it takes for written and the disk does not have; it brings them out only when they are written again.
   */
  get flushCoversReads(): boolean {
    return this.#lostAt === null || this.#lostWithBoot
  }

  /** The epoch that was the accepted one when that happened: what was written under later ones is here. */
  get lostAt(): Epoch | null {
    return this.#lostAt
  }

  /** Why the replica serves no more; undefined while it does. */
  get failure(): XosanError | undefined {
    return this.#failure
  }

  /** Regions where this replica may differ from others. Live, and not to be changed; `resize` replaces it. */
  get intents(): RegionSet {
    return this.#layer.intents
  }

  /**
   * Never again serves an epoch below this one; durable when it returns. The same epoch again, with the same
   * options, does nothing.
   * @throws EPOCH_STALE when the epoch is not above the accepted one; DISK_FAILED
   */
  async acceptEpoch(epoch: Epoch, { rebuilding }: AcceptOptions): Promise<void> {
    await this.#inMetadataTurn(async () => {
      const { acceptedEpoch, rebuilding: wasRebuilding } = this.#metadata
      const same = epoch === acceptedEpoch && rebuilding === wasRebuilding
      if (epoch <= acceptedEpoch && !same) {
        throw new XosanError('EPOCH_STALE', { epoch, accepted: acceptedEpoch })
      }
      if (same && this.#markedOpen) return
      await this.#update({ acceptedEpoch: epoch, rebuilding, clean: false })
      this.#markedOpen = true
    })
  }

  /**
   * Flushes everything and notes that nothing is un-flushed, so that a reboot from here loses nothing. Waits for
   * operations under way; a change that comes later takes the note back before it happens.
   * @throws DISK_FAILED
   */
  async markClean(): Promise<void> {
    await this.#inMetadataTurn(async () => {
      this.#markedOpen = false
      await this.#operations.drained()
      await this.#layer.flush()
      await this.#layer.writeClearedIntents()
      await this.#update({ clean: true })
    })
  }

  /** The mirror has made sure that nothing is missing: forgets that writes may be lost. @throws DISK_FAILED */
  async clearLost(): Promise<void> {
    await this.#inMetadataTurn(async () => {
      this.#lostAt = null
      await this.#update({})
    })
  }

  /**
   * Clears write intents. In memory at once, on disk later; a region that has changed since the last flush keeps
   * its bit.
   */
  clearIntents(regions: RegionSet): void {
    this.#check()
    this.#layer.clearIntents(regions)
  }

  /**
   * Sets the intents of all regions, durably: nothing that is here counts as the same as elsewhere, so whoever brings
   * the replica up to date copies all of it.
   * @throws DISK_FAILED
   */
  async markAllIntents(): Promise<void> {
    await this.#operation(async () => this.#layer.markAllIntents())
  }

  /** Space that the replica takes on the disk, in bytes. */
  async physicalBytes(): Promise<ByteLength> {
    const sizes = await this.#operation(() =>
      Promise.all([this.#layer.physicalBytes(), this.#file.physicalBytes()])
    ).catch(asXosanError(this.#disk, this.#path))
    return byteLength(sizes[0] + sizes[1])
  }

  /**
   * Grows the volume; the new part reads as zeros. Durable when it returns; after a crash the volume has one size or
   * the other. Does nothing when it has the size already.
   * @throws INVALID_ARGUMENT when the size is smaller or no multiple of 4096; NO_SPACE; DISK_FAILED
   */
  async resize(size: ByteLength): Promise<void> {
    requireSize(size)
    await this.#inMetadataTurn(async () => {
      const { size: current } = this
      if (size === current) return
      if (size < current) {
        const what = `a size of ${size} bytes for volume ${this.volume}`
        throw new XosanError('INVALID_ARGUMENT', {
          what,
          reason: `it has ${current} bytes and can only grow`,
        })
      }
      await this.#layer.grow(current, size).catch(asXosanError(this.#disk, this.#path))
      await this.#update({ size })
    })
  }

  async read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    this.#checkRange(offset, into.length)
    if (into.length > 0) await this.#operation(() => this.#layer.read(offset, into))
    return into
  }

  readAtOnce(offset: ByteOffset, into: Uint8Array): boolean {
    const isOut = this.#failure !== undefined || this.#closing !== undefined
    return !isOut && offset + into.length <= this.size && this.#layer.readAtOnce(offset, into)
  }

  async write({ offset, data, durable }: WriteRequest): Promise<void> {
    await this.#change(offset, data.length, durable, () => this.#layer.write(offset, data))
  }

  async zero({ offset, length, durable, keepAllocated }: ZeroRequest): Promise<void> {
    await this.#change(offset, length, durable, () =>
      keepAllocated
        ? this.#layer.writeZeros(offset, length)
        : this.#layer.discard(offset, length, !this.flushCoversReads)
    )
  }

  async trim({ offset, length, durable }: TrimRequest): Promise<void> {
    await this.#change(offset, length, durable, () =>
      this.#layer.discard(offset, length, !this.flushCoversReads)
    )
  }

  async flush(): Promise<void> {
    await this.#operation(() => this.#layer.flush())
  }

  async allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    this.#checkRange(offset, length)
    return this.#operation(() => this.#layer.allocation(offset, length))
  }

  /** Resolves when every operation that was asked for before the call has ended. */
  async drained(): Promise<void> {
    // What is counted no more by the first is counted by the second before anything else happens.
    await this.#unmarked.drained()
    await this.#operations.drained()
  }

  /**
   * Waits for the operations under way, then releases files and lock. Flushes nothing: see `markClean`. Later calls
   * fail with DISK_FAILED.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  get #metadata(): ReplicaMetadata {
    return this.#file.metadata
  }

  get #path(): string {
    return replicaDirectory(this.volume)
  }

  async #openLayer(): Promise<void> {
    const { volume, replica, layers, size, clean, boot } = this.#metadata
    const [layer] = layers
    if (layer === undefined || layers.length > 1) {
      throw new XosanError('UNSUPPORTED', {
        what: `replica ${replica} with ${layers.length} layers`,
        reason: 'this XOSAN has no snapshots yet',
      })
    }
    const place = { directory: replicaDirectory(volume), volume, replica, layer, size }
    const files = await openLayerFiles(this.#disk, place)
    try {
      this.#layer = await Layer.open(files, size, this.#boot, this.#layerOwner())
      if (!clean) await this.#layer.recover(boot !== this.#boot)
    } catch (error) {
      await Promise.all([files.data.close(), files.map.close(), files.live.close()])
      throw error
    }
  }

  #layerOwner(): LayerOwner {
    return {
      check: () => this.#checkFailure(),
      fatal: error => this.#fail(error),
      failedCall: async error =>
        hasCode(error, 'REPLICA_CORRUPT') ? this.#fail(error) : toXosanError(this.#disk, this.#path, error),
    }
  }

  /** Every change: the range, the mark that the replica is open, the change, its durability. */
  async #change(
    offset: number,
    length: number,
    durable: boolean,
    action: () => Promise<void>
  ): Promise<void> {
    this.#checkRange(offset, length)
    if (length === 0 && !durable) return
    // From the last look at the mark to the count of operations nothing is awaited: `markClean` sees one or the other.
    if (!this.#markedOpen) {
      const waiting = this.#unmarked.begin()
      try {
        while (!this.#markedOpen) await this.#markOpen()
      } finally {
        this.#unmarked.end(waiting)
      }
    }
    await this.#operation(async () => {
      if (length > 0) await action()
      if (durable) await this.#layer.flush()
      this.#checkFailure()
    })
  }

  /** Takes back `markClean` before a change. */
  async #markOpen(): Promise<void> {
    await this.#inMetadataTurn(async () => {
      if (this.#markedOpen) return
      await this.#update({ clean: false })
      this.#markedOpen = true
    })
  }

  async #operation<Result>(action: () => Promise<Result>): Promise<Result> {
    this.#check()
    const generation = this.#operations.begin()
    try {
      return await action()
    } finally {
      this.#operations.end(generation)
    }
  }

  async #inMetadataTurn(action: () => Promise<void>): Promise<void> {
    this.#check()
    const turn = this.#metadataTurn.then(() => {
      this.#checkFailure()
      return action()
    })
    this.#metadataTurn = turn.catch(() => undefined)
    return turn
  }

  async #update(changes: Partial<ReplicaMetadata>): Promise<void> {
    try {
      await this.#file.update({ ...this.#metadata, boot: this.#boot, lostAt: this.#lostAt, ...changes })
    } catch (error) {
      throw this.#fail(error)
    }
  }

  /** Closes the replica to everything, and leaves word of it for whoever opens it next. */
  #fail(error: unknown): XosanError {
    if (this.#failure !== undefined) return this.#failure
    this.#failure = hasCode(error, 'REPLICA_CORRUPT')
      ? error
      : new XosanError('DISK_FAILED', { path: this.#path, reason: reasonOf(error) }, { cause: error })
    this.#lostAt = this.acceptedEpoch
    const leaveWord = (): Promise<void> =>
      this.#file.update({ ...this.#metadata, boot: this.#boot, lostAt: this.#lostAt, clean: false })
    // The disk may refuse this too. The page cache at least will tell another process of this boot.
    this.#metadataTurn = this.#metadataTurn.then(leaveWord).catch(() => undefined)
    return this.#failure
  }

  #checkFailure(): void {
    if (this.#failure !== undefined) throw this.#failure
  }

  /** Before an operation begins; those under way go on while the replica is closed. */
  #check(): void {
    this.#checkFailure()
    if (this.#closing !== undefined) {
      throw new XosanError('DISK_FAILED', { path: this.#path, reason: 'the replica has been closed' })
    }
  }

  #checkRange(offset: number, length: number): void {
    if (offset >= 0 && length >= 0 && offset + length <= this.size) return
    throw new XosanError('OUT_OF_RANGE', { offset, end: offset + length, size: this.size })
  }

  async #close(): Promise<void> {
    await this.#operations.drained()
    await this.#metadataTurn
    await Promise.all([this.#layer.close(), this.#file.close()])
  }
}

/** Of two losses the one that cost more: what was written under lower epochs than its own may be gone. */
const laterOf = (one: Epoch | null, other: Epoch | null): Epoch | null =>
  one === null || (other !== null && other > one) ? other : one
