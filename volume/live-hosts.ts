import { type PlacementHost } from '../core/placement/space.ts'
import { type SrId } from '../core/units.ts'
import { type VolumeContext } from './context.ts'
import { type Deadline } from './deadline.ts'

/** A host that does not tell its space within this time gets no new replica. */
const SPACE_MS = 2000

/** The hosts of an SR that answer, with the space that their stores have now. */
export async function liveHosts(
  context: VolumeContext,
  sr: SrId,
  deadline: Deadline
): Promise<PlacementHost[]> {
  const asked = context.metadata.stores(sr).map(async ({ host, store }): Promise<PlacementHost[]> => {
    try {
      const agent = context.agent(host)
      const { total, free } = await agent.peer('host.stat', { sr, store }, deadline.remainingMs(SPACE_MS))
      return [{ host, store, total, free }]
    } catch {
      return []
    }
  })
  return (await Promise.all(asked)).flat()
}
