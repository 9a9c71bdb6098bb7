/** How a soak ends: all healed, everything checked from another host, and the replicas compared. */
import { reasonOf } from '../../../core/errors.ts'
import { type TestLab } from '../../support/test-lab.ts'
import { compareReplicas, findsPlantedByte, heal } from '../cluster/cluster-state.ts'
import { type Campaign } from './campaign.ts'
import { deflate } from './inflict.ts'
import { type SoakVolume } from './soak-volume.ts'
import { type Tally } from './tally.ts'

/** @returns bytes of replicas' files that were compared, and in how many volumes a byte that was changed was found */
export async function finish(
  lab: TestLab,
  volumes: readonly SoakVolume[],
  campaign: Campaign,
  tally: Tally
): Promise<{ readonly compared: number; readonly planted: number }> {
  await deflate(lab)
  await heal(lab)
  await campaign.settle(true)
  let [compared, planted] = [0, 0]
  for (const volume of volumes) {
    try {
      const other = volume.holders.find(host => host !== volume.host) ?? lab.hosts[0]!
      await volume.finish(other)
      // Closed, so that nothing is un-synced any more.
      compared += await compareReplicas(lab, volume.volume)
      if (await findsPlantedByte(lab, volume.volume)) planted++
      else tally.fault(`volume ${volume.index}: a byte that was changed on purpose was not found`)
    } catch (error) {
      tally.fault(`volume ${volume.index} at the end: ${reasonOf(error)}`)
    }
    for (const fault of volume.takeFaults()) tally.fault(`at the end: ${fault}`)
  }
  return { compared, planted }
}
