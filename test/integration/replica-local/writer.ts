/**
 * Writes random blocks of a replica until it is killed, and says on stdout what it begins and what was acknowledged.
 * Arguments: directory, volume, boot id, seed.
 */
import { writeSync } from 'node:fs'
import { BLOCK_BYTES, byteOffset, type BootId, type Epoch, type VolumeKey } from '../../../core/units.ts'
import { NodeDisk } from '../../../datapath/disk/node-disk.ts'
import { LocalReplica } from '../../../datapath/replica-local/local-replica.ts'
import { SeededRandom } from '../../simulator/seeded-random.ts'

const [directory, volume, boot, seed] = process.argv.slice(2) as [string, string, string, string]
const WORKERS = 16

const random = new SeededRandom(Number(seed))
const replica = await LocalReplica.open(await NodeDisk.open(directory), volume as VolumeKey, boot as BootId)
await replica.acceptEpoch((replica.acceptedEpoch + 1) as Epoch, { rebuilding: false })

/** Says a line at once and whole: the pipe may be full, and the process may be killed right after. */
function say(line: string): void {
  for (;;) {
    try {
      writeSync(1, `${line}\n`)
      return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    }
  }
}

/** Each worker has blocks of its own, so that no two writes overlap. */
async function work(worker: number): Promise<never> {
  const blocks = replica.size / BLOCK_BYTES
  for (;;) {
    const block = Math.floor(random.below(blocks) / WORKERS) * WORKERS + worker
    const value = 1 + random.below(255)
    say(`begin ${block} ${value}`)
    await replica.write({
      offset: byteOffset(block * BLOCK_BYTES),
      data: new Uint8Array(BLOCK_BYTES).fill(value),
      durable: random.fraction() < 0.2,
    })
    say(`done ${block} ${value}`)
  }
}

await Promise.all(Array.from({ length: WORKERS }, (_, worker) => work(worker)))
