import { mkdir } from 'node:fs/promises'
import { hasCode } from '../../../../core/errors.ts'
import {
  BLOCK_BYTES,
  type BootId,
  type Epoch,
  type LayerId,
  type ReplicaId,
  type StoreId,
  type VolumeKey,
  byteLength,
  byteOffset,
} from '../../../../core/units.ts'
import { bootId } from '../../../../daemon/supervision/run.ts'
import { NodeDisk } from '../../../../datapath/disk/node-disk.ts'
import { LocalReplica } from '../../../../datapath/replica-local/local-replica.ts'
import { type ReplicaSpec } from '../../../../datapath/replica-local/replica-directory.ts'
import { SLOTS, changeOf, numberIn, slotsText, uuidOf } from '../items.ts'
import { type OpenWorkload } from './workload.ts'

/** What a disk writes whole: a write of more that is in flight when the power is cut may be there in part. */
const ITEM_BYTES = 512
const SIZE = byteLength(4 * 1024 * 1024)
/** Slots lie in regions of their own, so that their write intents are set one by one. */
const SLOT_BYTES = 128 * 1024

const specOf = (volume: number, replica: number): ReplicaSpec => ({
  volume: uuidOf(volume) as VolumeKey,
  replica: uuidOf(replica) as ReplicaId,
  store: uuidOf(5) as StoreId,
  layers: [uuidOf(6) as LayerId],
  size: SIZE,
})

const LASTING = specOf(1, 1)
const PASSING_VOLUME = 2

/**
 * Replicas in a store, as the datapath processes have them. `blocks`: writes and trims of one that are to be durable, or are
 * flushed, by turns; `epoch`: the epochs that it accepts; `made`: another one is made and removed.
 */
export const openWorkload: OpenWorkload = async directory => {
  const store = `${directory}/store`
  await mkdir(store, { recursive: true, mode: 0o700 })
  const disk = await NodeDisk.open(store)
  const boot = bootId() as BootId
  // Does nothing when it is there: what a cut has left of the first time is made anew.
  await LocalReplica.create(disk, LASTING)
  const replica = await LocalReplica.open(disk, LASTING.volume, boot)
  const made = (item: number): ReplicaSpec => specOf(PASSING_VOLUME, item)
  return {
    standing: async () => ({
      blocks: slotsText(await itemsIn(replica), null),
      epoch: String(replica.acceptedEpoch),
      made: String(await passingReplica(disk, boot)),
    }),
    write: async (chain, item) => {
      if (chain === 'blocks') await change(replica, item)
      else if (chain === 'epoch') await replica.acceptEpoch(item as Epoch, { rebuilding: false })
      else if (item % 2 === 0) await LocalReplica.remove(disk, made(item).volume, made(item - 1).replica)
      else {
        try {
          await LocalReplica.create(disk, made(item))
        } catch (error) {
          if (!hasCode(error, 'REPLICA_PRESENT')) throw error
          // A removal that the power cut has interrupted when the replica itself was gone: it is asked for again.
          await LocalReplica.remove(disk, made(item).volume, made(item - 2).replica)
          await LocalReplica.create(disk, made(item))
        }
      }
    },
  }
}

async function change(replica: LocalReplica, item: number): Promise<void> {
  const { put, removed } = changeOf('steps', item)
  const durable = item % 3 === 0
  const offset = byteOffset((put ?? removed!) * SLOT_BYTES)
  if (put === null) await replica.trim({ offset, length: byteLength(BLOCK_BYTES), durable })
  else await replica.write({ offset, data: Buffer.alloc(ITEM_BYTES, `item ${item} `), durable })
  if (!durable) await replica.flush()
}

/** @throws Error for a slot with anything but one item, and zeros behind it */
async function itemsIn(replica: LocalReplica): Promise<Map<number, number>> {
  const items = new Map<number, number>()
  for (let slot = 0; slot < SLOTS; slot++) {
    const found = Buffer.from(await replica.read(byteOffset(slot * SLOT_BYTES), Buffer.alloc(SLOT_BYTES)))
    const item = Number(/^item (\d+) /.exec(found.toString('latin1', 0, 30))?.[1] ?? 0)
    const expected = Buffer.alloc(SLOT_BYTES)
    if (item !== 0) expected.fill(`item ${item} `, 0, ITEM_BYTES)
    if (!found.equals(expected)) throw new Error(`slot ${slot} holds neither item ${item} nor zeros alone`)
    if (item !== 0) items.set(slot, item)
  }
  return items
}

/** Number of the replica that is made and removed; 0 when there is none. */
async function passingReplica(disk: NodeDisk, boot: BootId): Promise<number> {
  try {
    const replica = await LocalReplica.open(disk, specOf(PASSING_VOLUME, 0).volume, boot)
    try {
      return numberIn(replica.replica)
    } finally {
      await replica.close()
    }
  } catch (error) {
    if (hasCode(error, 'REPLICA_GONE')) return 0
    throw error
  }
}
