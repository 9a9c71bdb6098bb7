/**
 * The file `replica`: whose copy this is, the highest epoch it has accepted, and whether it was closed clean.
 *
 * An epoch that was acknowledged must never be forgotten, or two primaries could write one volume. So the file has
 * two slots with the same content, and a change counts as made only when it is durable in both, one after the other:
 *
 * - a power cut while the first slot is written leaves the second one whole, with the state before the change, which
 *   nobody was told of;
 * - a power cut while the second is written leaves the first whole, with the new state;
 * - damage to one slot at any later time leaves the other, equally new.
 *
 * Falling back from one slot to the other is therefore always safe, and both damaged is always reported. With slots
 * that alternate (one sync less) a damaged newest slot could not be told from one that was never acknowledged.
 *
 * A slot is text: `xosan-replica VERSION GENERATION BYTES CRC` and, on the next line, JSON.
 */
import { crc32 } from 'node:zlib'
import { z } from 'zod'
import { XosanError, reasonOf } from '../../core/errors.ts'
import { type Disk, type DiskFile } from '../../core/ports/disk.ts'
import {
  type BootId,
  type ByteLength,
  type ByteOffset,
  type Epoch,
  type LayerId,
  type ReplicaId,
  type StoreId,
  type VolumeKey,
} from '../../core/units.ts'

const FORMAT_VERSION = 1
/** Room for about 1600 layers. */
const SLOT_BYTES = 65_536
const SLOTS: readonly ByteOffset[] = [0 as ByteOffset, SLOT_BYTES as ByteOffset]
/** Slots are written in pages, so that a small one costs a small write. */
const PAGE_BYTES = 4096

const uuid = z.string().regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)

const schema = z.strictObject({
  volume: uuid.transform(text => text as VolumeKey),
  replica: uuid.transform(text => text as ReplicaId),
  store: uuid.transform(text => text as StoreId),
  /** Oldest first; the last one is written. */
  layers: z
    .array(uuid.transform(text => text as LayerId))
    .min(1)
    .readonly(),
  /** Virtual size in bytes. */
  size: z
    .int()
    .positive()
    .transform(bytes => bytes as ByteLength),
  acceptedEpoch: z
    .int()
    .nonnegative()
    .transform(number => number as Epoch),
  /** Whether the accepted epoch's record counted this replica as one to be brought up to date. */
  rebuilding: z.boolean(),
  /** Boot under which the replica was last open for changes; null when it never was. */
  boot: uuid.transform(text => text as BootId).nullable(),
  /** Nothing was un-flushed when it was closed, and nothing has changed since. */
  clean: z.boolean(),
  /**
   * The epoch that was the accepted one when un-flushed writes may have been lost, while nobody has reconciled the
   * replica since; null when there is nothing to reconcile.
   */
  lostAt: z
    .int()
    .nonnegative()
    .transform(number => number as Epoch)
    .nullable(),
})

/** What the file `replica` says. */
export type ReplicaMetadata = z.infer<typeof schema>

interface Slot {
  readonly generation: number
  readonly metadata: ReplicaMetadata
}

/** The open file `replica`. The lock that makes its holder the replica's only process lies on it. */
export class MetadataFile {
  readonly #file: DiskFile
  #slot: Slot
  /** Rises with every attempt, so that a failed one cannot leave two slots that claim to be equally new. */
  #generation: number

  private constructor(file: DiskFile, slot: Slot) {
    this.#file = file
    this.#slot = slot
    this.#generation = slot.generation
  }

  /** Writes a new file and makes its content durable; its name is the caller's to make so. */
  static async create(file: DiskFile, metadata: ReplicaMetadata): Promise<MetadataFile> {
    const created = new MetadataFile(file, { generation: 0, metadata })
    await file.reserve(0 as ByteOffset, (SLOTS.length * SLOT_BYTES) as ByteLength)
    await created.update(metadata)
    return created
  }

  /**
   * Reads the file; when a crash may have left its slots unequal it makes them equal before it returns, so that the
   * protection above starts anew. They may be so although they look equal: a slot whose sync failed is in the page cache.
   * @param path of the file, for messages
   * @throws REPLICA_CORRUPT when no slot is whole; UNSUPPORTED when a newer version wrote it; what the disk throws
   */
  static async open(file: DiskFile, path: string): Promise<MetadataFile> {
    const slots = await readSlots(file, path)
    const newest = newestOf(slots, path)
    const opened = new MetadataFile(file, newest)
    const differ = slots.some(slot => typeof slot !== 'object' || slot.generation !== newest.generation)
    if (differ || !newest.metadata.clean) await opened.update(newest.metadata)
    return opened
  }

  /** What the file says, without changing it. @throws as `open` */
  static async peek(file: DiskFile, path: string): Promise<ReplicaMetadata> {
    return newestOf(await readSlots(file, path), path).metadata
  }

  /** The durable state. */
  get metadata(): ReplicaMetadata {
    return this.#slot.metadata
  }

  /** Makes a new state durable in both slots. Calls must not overlap. @throws what the disk throws */
  async update(metadata: ReplicaMetadata): Promise<void> {
    this.#generation += 1
    const slot = { generation: this.#generation, metadata }
    const encoded = encodeSlot(slot)
    for (const position of SLOTS) {
      await this.#file.write(encoded, position)
      await this.#file.sync()
    }
    this.#slot = slot
  }

  /** Space that the file takes on the disk, in bytes. */
  async physicalBytes(): Promise<number> {
    return (await this.#file.stat()).allocated
  }

  close(): Promise<void> {
    return this.#file.close()
  }
}

/** Opens a file that may be missing. @returns undefined when it is */
export async function openExisting(disk: Disk, path: string): Promise<DiskFile | undefined> {
  try {
    return await disk.open(path, false)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/**
 * Opens a file and takes its lock.
 * @returns undefined when it is missing and `create` is false
 * @throws REPLICA_LOCKED when another process, or another open in this one, has it
 */
export async function openLocked(disk: Disk, path: string, create: boolean): Promise<DiskFile | undefined> {
  const file = create ? await disk.open(path, true) : await openExisting(disk, path)
  if (file === undefined) return undefined
  if (!file.tryLock()) {
    await file.close()
    throw new XosanError('REPLICA_LOCKED', { path })
  }
  return file
}

function encodeSlot(slot: Slot): Buffer {
  const json = Buffer.from(JSON.stringify(slot.metadata))
  const front = Buffer.from(`xosan-replica ${FORMAT_VERSION} ${slot.generation} ${json.length}`)
  const sum = crc32(json, crc32(front)).toString(16).padStart(8, '0')
  const text = Buffer.concat([front, Buffer.from(` ${sum}\n`), json, Buffer.from('\n')])
  const encoded = Buffer.alloc(Math.ceil(text.length / PAGE_BYTES) * PAGE_BYTES)
  if (encoded.length > SLOT_BYTES) {
    throw new XosanError('UNSUPPORTED', {
      what: `a stack of ${slot.metadata.layers.length} layers`,
      reason: `its description takes more than ${SLOT_BYTES} bytes`,
    })
  }
  encoded.set(text)
  return encoded
}

type ReadSlot = Slot | 'damaged' | 'newer-version'

function newestOf(slots: readonly ReadSlot[], path: string): Slot {
  const whole = slots.filter(slot => typeof slot === 'object')
  const newest = whole.reduce<Slot | undefined>(
    (best, slot) => (best === undefined || slot.generation > best.generation ? slot : best),
    undefined
  )
  if (newest === undefined && slots.includes('newer-version')) {
    throw new XosanError('UNSUPPORTED', {
      what: `the version of replica file ${path}`,
      reason: `this XOSAN reads version ${FORMAT_VERSION}`,
    })
  }
  if (newest === undefined) {
    throw new XosanError('REPLICA_CORRUPT', { path, reason: 'both copies of its metadata are damaged' })
  }
  return newest
}

async function readSlots(file: DiskFile, path: string): Promise<ReadSlot[]> {
  const slots: ReadSlot[] = []
  for (const position of SLOTS) {
    const bytes = Buffer.alloc(SLOT_BYTES)
    await file.read(bytes, position)
    slots.push(decodeSlot(bytes, path))
  }
  return slots
}

function decodeSlot(bytes: Buffer, path: string): ReadSlot {
  const lineEnd = bytes.subarray(0, 128).indexOf('\n')
  const line = bytes.toString('latin1', 0, Math.max(lineEnd, 0))
  const version = /^xosan-replica (\d+) /.exec(line)?.[1]
  if (version !== undefined && Number(version) > FORMAT_VERSION) return 'newer-version'
  const match = /^(xosan-replica \d+ (\d+) (\d+)) ([0-9a-f]{8})$/.exec(line)
  if (match === null) return 'damaged'
  const [, front = '', generation, length, sum = ''] = match
  const json = bytes.subarray(lineEnd + 1, lineEnd + 1 + Number(length))
  if (crc32(json, crc32(front)) !== Number.parseInt(sum, 16)) return 'damaged'
  const parsed = schema.safeParse(parseJson(json, path))
  if (!parsed.success) {
    throw new XosanError('REPLICA_CORRUPT', { path, reason: z.prettifyError(parsed.error) })
  }
  return { generation: Number(generation), metadata: parsed.data }
}

function parseJson(json: Buffer, path: string): unknown {
  try {
    return JSON.parse(json.toString('utf8'))
  } catch (error) {
    throw new XosanError('REPLICA_CORRUPT', { path, reason: reasonOf(error) })
  }
}
