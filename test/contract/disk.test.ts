import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { NodeDisk } from '../../datapath/disk/node-disk.ts'
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
