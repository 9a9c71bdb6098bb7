import { setTimeout as delay } from 'node:timers/promises'
import assert from 'node:assert/strict'
import { type EtcdCoordinator, openEtcdCoordinator } from '../../../cluster/etcd/etcd-coordinator.ts'
import { type EtcdMember, type EtcdTls } from '../../../cluster/etcd/member-link.ts'
import { hasCode } from '../../../core/errors.ts'
import { type Coordinator, type WatchEvent } from '../../../core/ports/coordinator.ts'
import { millis } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'

export const NAMESPACE = 'xosan/test/1/'
/** Long enough for an election of the tests' members, so that one attempt may fail and another succeed. */
const CALL_TIME_MS = 2_500
/** Load on the machine may delay the end of a call by about that much. */
const TOLERANCE_MS = 1_500

export const openClient = (
  members: readonly EtcdMember[],
  { tls = null, callTimeMs = CALL_TIME_MS }: { tls?: EtcdTls | null; callTimeMs?: number } = {}
): EtcdCoordinator =>
  openEtcdCoordinator({
    target: { members, tls },
    namespace: NAMESPACE,
    clock: createNodeClock(),
    random: nodeRandom,
    callTimeMs: millis(callTimeMs),
    watchPingMs: millis(200),
  })

/** Removes what the test before has left. */
export async function removeAll(client: Coordinator): Promise<void> {
  const { entries } = await eventually(async () => client.list(''))
  for (let i = 0; i < entries.length; i += 100) {
    const changes = entries.slice(i, i + 100).map(({ key }) => ({ key, value: null }))
    await eventually(async () => client.transact([], changes))
  }
}

export type Outcome = 'committed' | 'refused' | 'unavailable' | 'unknown'

/** Creates a key, and tells how that ended. Fails when it took longer than a call may, or ended in no known way. */
export async function create(client: Coordinator, key: string, value = 'x'): Promise<Outcome> {
  const startedAt = performance.now()
  try {
    const { committed } = await client.transact([{ key, revision: 0 }], [{ key, value }])
    return committed ? 'committed' : 'refused'
  } catch (error) {
    if (hasCode(error, 'COORDINATOR_UNAVAILABLE')) return 'unavailable'
    if (hasCode(error, 'COORDINATOR_OUTCOME_UNKNOWN')) return 'unknown'
    throw error
  } finally {
    const tookMs = performance.now() - startedAt
    assert.ok(tookMs < CALL_TIME_MS + TOLERANCE_MS, `a call took ${Math.round(tookMs)} ms`)
  }
}

/** Repeats an action until it succeeds, at most for the time of a test. */
export async function eventually<T>(action: () => Promise<T>): Promise<T> {
  const startedAt = performance.now()
  for (;;) {
    try {
      return await action()
    } catch (error) {
      if (performance.now() - startedAt > 15_000) throw error
      await delay(20)
    }
  }
}

/** Collects what a watch tells; every revision must be higher than the one before. */
export function follow(client: Coordinator, prefix: string, after: number) {
  const events: (WatchEvent & { readonly revision: number })[] = []
  const batches: { readonly revision: number; readonly size: number }[] = []
  const state = { reached: after, failure: null as Error | null }
  const watch = client.watch(prefix, after, {
    changed(revision, changes) {
      assert.ok(revision > state.reached, `revision ${revision} came after ${state.reached}`)
      state.reached = revision
      events.push(...changes.map(change => ({ ...change, revision })))
      if (changes.length > 0) batches.push({ revision, size: changes.length })
    },
    failed: error => (state.failure = error),
  })
  return {
    events,
    batches,
    watch,
    reached: () => state.reached,
    async until(revision: number): Promise<void> {
      await eventually(async () => {
        if (state.failure !== null) throw state.failure
        assert.ok(state.reached >= revision, `the watch is at ${state.reached}, not at ${revision}`)
      })
    },
    failure: async (): Promise<Error> =>
      eventually(async () => {
        assert.ok(state.failure !== null, `the watch goes on, at ${state.reached}`)
        return state.failure
      }),
  }
}
