import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { NodeDisk } from '../../datapath/disk/node-disk.ts'
import { UnsyncedInMemory } from '../../datapath/disk/unsynced-in-memory.ts'
import { SeededRandom } from '../simulator/seeded-random.ts'
import { SimulatedDisk } from '../simulator/simulated-disk.ts'
import { diskContract } from './disk.ts'

diskContract('SimulatedDisk', async () => {
  const disk = new SimulatedDisk({ random: new SeededRandom(1) })
  return { disk: disk.mount(), another: disk.mount() }
})

diskContract('NodeDisk', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'xosan-disk-'))
  return {
    disk: await NodeDisk.open(directory),
    another: await NodeDisk.open(directory),
    dispose: () => rm(directory, { recursive: true }),
  }
})

// With little memory, so that writes go back to the file now and then; `another` shares the files' locks only.
for (const bytesMax of [0, 65_536, 2 ** 30]) {
  diskContract(`UnsyncedInMemory with ${bytesMax} bytes`, async () => {
    const directory = await mkdtemp(join(tmpdir(), 'xosan-disk-'))
    return {
      disk: new UnsyncedInMemory(await NodeDisk.open(directory), new SeededRandom(1), bytesMax),
      another: await NodeDisk.open(directory),
      dispose: () => rm(directory, { recursive: true }),
    }
  })
}
