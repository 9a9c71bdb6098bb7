/**
 * Volumes that are removed while somebody opens them: the record says so first, and then is gone. Who opens one at that
 * moment must be told, and hold nothing. In pools xosand does this; here a volume comes and goes beside those of guests.
 */
import { volumeStateKey } from '../../cluster/keys.ts'
import { parseVolumeState, serialiseVolumeState } from '../../cluster/volume-state.ts'
import { reasonOf, XosanError } from '../../core/errors.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { type Millis, type VolumeKey } from '../../core/units.ts'
import { makeReplicas } from './making-volumes.ts'
import { isMistake } from './mistakes.ts'
import { type SimulatedHost } from './simulated-host.ts'
import { type Universe } from './universe.ts'
import { type SeededRandom } from './world.ts'

/** What who opens such a volume may be told. */
const ADMITTED = new Set([
  'VOLUME_NOT_FOUND',
  'NO_REPLICA_REACHABLE',
  'COORDINATOR_UNAVAILABLE',
  'DEADLINE_EXCEEDED',
  'ACTIVATED_ON_ANOTHER_HOST',
])
const ACTIVATION_MS = 3_000 as Millis

/** Makes a volume, opens it on two hosts, and removes it at the same time. */
export async function passingVolume(universe: Universe, random: SeededRandom): Promise<void> {
  const { hosts, sr, coordinator, world } = universe
  const key = random.uuid() as VolumeKey
  const record = volumeStateKey(sr, key)
  const put = (state: VolumeState): void => {
    coordinator.transact('remover', [], [{ key: record, value: serialiseVolumeState(record, state) }])
  }
  const read = (): VolumeState => parseVolumeState(record, coordinator.read(record).entry!.value)
  try {
    put(await makeReplicas(universe, random, key))
  } catch {
    return
  }
  const opened = random
    .shuffled(hosts)
    .slice(0, 2)
    .map(async host => open(universe, host, key, random.between(0, 6)))
  await world.pause(random.between(0, 10))
  // Nothing is removed that is open, or about to be.
  while (read().primary !== null) {
    const primary = hosts.find(({ id }) => id === read().primary)!
    const closing = universe.administrator.ask(primary, async () => close(primary, key), ACTIVATION_MS)
    await closing.catch(() => undefined)
    await world.pause(200)
  }
  put({ ...read(), operation: { kind: 'deleting', host: hosts[0]!.id, id: random.uuid() } })
  await world.pause(random.between(0, 8))
  coordinator.transact('remover', [], [{ key: record, value: null }])
  await Promise.all(opened)
}

async function open(universe: Universe, host: SimulatedHost, key: VolumeKey, afterMs: number): Promise<void> {
  const { administrator, sr, world } = universe
  await world.pause(afterMs)
  if (!host.running) return
  const activate = async (): Promise<unknown> => host.node!.activate(sr, key, ACTIVATION_MS)
  await administrator.ask(host, activate, 2 * ACTIVATION_MS).catch((error: unknown) => {
    const isTold = error instanceof XosanError && !ADMITTED.has(error.code)
    if (!isTold && !isMistake(error)) return
    universe.problem(`P5: who opened a volume that was removed was told: ${reasonOf(error)}`)
  })
}

async function close({ node }: SimulatedHost, key: VolumeKey): Promise<void> {
  await node?.deactivate(key, ACTIVATION_MS)
}
