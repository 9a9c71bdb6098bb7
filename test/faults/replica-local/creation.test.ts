import assert from 'node:assert/strict'
import { hasCode } from '../../../core/errors.ts'
import { byteOffset, type ReplicaId } from '../../../core/units.ts'
import { LocalReplica } from '../../../datapath/replica-local/local-replica.ts'
import { ReplicaHost } from '../../support/replica-on-simulated-disk.ts'

const SIZE = 2 * 1024 * 1024
const SEEDS = 2

/**
 * Runs work and crashes the host at one of its disk calls.
 * @returns false when the work made fewer calls and so has ended
 */
async function crashAt(
  host: ReplicaHost,
  call: number,
  crash: 'powerCut' | 'restartProcess',
  work: () => Promise<void>
): Promise<boolean> {
  const stop = new Error('crashed')
  let calls = 0
  let hasCrashed = false
  host.disk.fault = () => {
    calls += 1
    if (calls < call || hasCrashed) return
    hasCrashed = true
    host[crash]()
    throw stop
  }
  const ended = work().then(
    () => true,
    () => false
  )
  // Calls of a dead process never settle; everything else has settled by then.
  await Promise.race([ended, new Promise(resolve => setImmediate(resolve))])
  host.disk.fault = undefined
  return hasCrashed
}

/** Calls an action for each call of some work, with both kinds of crash and several fates of what was un-synced. */
async function atEachCall(
  prepare: (host: ReplicaHost) => Promise<void>,
  work: (host: ReplicaHost) => Promise<void>,
  check: (host: ReplicaHost, seed: number) => Promise<void>
): Promise<void> {
  for (const crash of ['powerCut', 'restartProcess'] as const) {
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      for (let call = 1; ; call += 1) {
        const host = new ReplicaHost(seed, SIZE)
        await prepare(host)
        if (!(await crashAt(host, call, crash, () => work(host)))) {
          assert.ok(call > 5, 'the work makes calls')
          break
        }
        await check(host, seed).catch((error: unknown) => {
          throw new Error(`${crash}, seed ${seed}, call ${call}: ${(error as Error).message}`, {
            cause: error,
          })
        })
      }
    }
  }
}

async function checkServes(host: ReplicaHost): Promise<void> {
  await host.open()
  const content = new Uint8Array(SIZE).fill(1)
  await host.replica.read(byteOffset(0), content)
  assert.ok(content.every(byte => byte === 0))
  await host.replica.close()
}

describe('the files of a local replica', function () {
  this.timeout(120_000)

  it('are made whole by a second creation, wherever the first was cut short', async () => {
    await atEachCall(
      async () => undefined,
      host => LocalReplica.create(host.mount, host.spec),
      async host => {
        // Before it is made again it is either not there or whole.
        const found = await host.open().catch((error: unknown) => {
          assert.ok(hasCode(error, 'REPLICA_GONE'), String(error))
          return undefined
        })
        await found?.close()
        await LocalReplica.create(host.mount, host.spec)
        await checkServes(host)
      }
    )
  })

  it('are all gone after a second removal, wherever the first was cut short', async () => {
    await atEachCall(
      host => LocalReplica.create(host.mount, host.spec),
      host => LocalReplica.remove(host.mount, host.spec.volume, host.spec.replica),
      async host => {
        await LocalReplica.remove(host.mount, host.spec.volume, host.spec.replica)
        host.powerCut()
        assert.deepEqual(await host.mount.list('volumes'), [])
        await LocalReplica.create(host.mount, host.spec)
        await checkServes(host)
      }
    )
  })

  it('of a half-made replica are touched only in its own name', async () => {
    await atEachCall(
      async () => undefined,
      host => LocalReplica.create(host.mount, host.spec),
      async host => {
        const other = { ...host.spec, replica: host.random.uuid() as ReplicaId }
        const refused = await LocalReplica.create(host.mount, other).then(
          () => false,
          (error: unknown) => {
            assert.ok(hasCode(error, 'REPLICA_PRESENT'), String(error))
            return true
          }
        )
        // Where nothing names the first one yet, the second is simply made.
        if (refused) await LocalReplica.remove(host.mount, host.spec.volume, host.spec.replica)
        await LocalReplica.create(host.mount, other)
        await checkServes(host)
      }
    )
  })
})
