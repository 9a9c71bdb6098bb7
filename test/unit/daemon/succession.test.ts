import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { memberKey } from '../../../cluster/keys.ts'
import { serialiseMemberRecord, type SrRecord } from '../../../cluster/records.ts'
import { XosanError } from '../../../core/errors.ts'
import { type HostId, type SrId } from '../../../core/units.ts'
import { type Pool } from '../../../daemon/cluster/pool.ts'
import { type SuccessionRecord } from '../../../daemon/cluster/succession-record.ts'
import { Succession } from '../../../daemon/cluster/succession.ts'
import { createLog } from '../../../daemon/log.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { createSuccessor } from '../../../trust/successor.ts'
import { TrustDirectory } from '../../../trust/trust-directory.ts'
import { Deadline } from '../../../volume/deadline.ts'
import { SimulatedCoordinator } from '../../simulator/simulated-coordinator.ts'
import { newHostId, TrustRig } from '../../support/trust-rig.ts'

const clock = createNodeClock()
const sr = randomUUID() as SrId
const hosts = [1, 2, 3, 4, 5].map(newHostId)
const [h1, h2, h3, h4, h5] = hosts as [HostId, HostId, HostId, HostId, HostId]
const nameOf = (host: HostId): string => `h${hosts.indexOf(host) + 1}`

/** A succession on h2, as far as to the first file. */
class Beginning {
  readonly store = new SimulatedCoordinator({ clock })
  /** What was done, in words. */
  readonly done: string[] = []
  readonly up = new Set([h2, h3, h4, h5])
  /** As the SR's record has it. */
  begun: { removed: HostId[]; by: HostId } | undefined
  /** The files of h2; without any it ends where they are needed. */
  directory: TrustDirectory | null = null
  /** On all other hosts. */
  timeOfDay = Date.now()
  /** Why the list of revoked certificates cannot be taken over. */
  published: XosanError | null = null

  constructor() {
    for (const host of hosts) {
      const key = memberKey(host)
      this.writeMember(
        host,
        serialiseMemberRecord(key, { version: 1, host, admission: 'a', certificates: [] })
      )
    }
  }

  writeMember(host: HostId, value: string): void {
    this.store.transact('the test', [], [{ key: memberKey(host), value }])
  }

  async remove(host: HostId, withinMs = 20_000): Promise<void> {
    const record: Pick<SuccessionRecord, 'read' | 'claim' | 'requireClaim' | 'hold'> = {
      requireClaim: async () => Promise.resolve(),
      hold: async () => Promise.resolve(),
      read: async () => Promise.resolve({ succession: this.begun } as unknown as SrRecord),
      claim: async (_, removed, by) => {
        this.begun = { removed: [...new Set([...(this.begun?.removed ?? []), removed])], by }
        this.done.push(`claims for ${this.begun.removed.map(nameOf).join()}`)
        return Promise.resolve(new Set(this.begun.removed))
      },
    }
    const pool = {
      call: async (called: HostId) => {
        if (!this.up.has(called)) throw new XosanError('PEER_UNREACHABLE', { host: 'it', reason: 'down' })
        return Promise.resolve({
          version: '1',
          sr,
          holdsData: true,
          timeOfDay: this.timeOfDay,
          witness: false,
        })
      },
      hosts: async () => new Promise<never>(() => undefined),
    } as Pick<Pool, 'call' | 'hosts'>
    const succession = new Succession({
      host: { uuid: h2, address: '127.0.0.2' },
      version: '1',
      pool,
      coordinator: this.store.client('h2'),
      clock,
      record: record as SuccessionRecord,
      removeMembers: async (leaving: readonly HostId[]) => {
        this.done.push(`removes ${leaving.map(nameOf).join()}`)
        return Promise.resolve()
      },
      revocationsPublished: async () => {
        if (this.published !== null) throw this.published
        return Promise.resolve()
      },
      directory: async () => {
        if (this.directory === null) throw new Error('it goes on')
        return Promise.resolve(this.directory)
      },
      steps: { trust: async () => Promise.resolve() },
      nameOf,
      log: createLog('test', 'error'),
    } as unknown as ConstructorParameters<typeof Succession>[0])
    await succession.carryOut(sr, host, new Deadline(clock, 'the test', withinMs))
  }
}

const GOES_ON = /it goes on/

describe('a succession', () => {
  let beginning: Beginning
  beforeEach(() => (beginning = new Beginning()))

  it('begins when all others answer', async () => {
    await assert.rejects(beginning.remove(h1), GOES_ON)
    assert.deepEqual(beginning.done, ['claims for h1', 'removes h1'])
  })

  it('does not begin while one is away, and names it', async () => {
    beginning.up.delete(h4)
    await assert.rejects(beginning.remove(h1), { code: 'SUCCESSION_WAITS', message: /Host h4: / })
    assert.deepEqual(beginning.done, [])
  })

  it('does not begin while clocks are days apart, since a host would refuse its certificate half-way', async () => {
    beginning.timeOfDay -= 3 * 24 * 3_600_000
    await assert.rejects(beginning.remove(h1), { code: 'CLOCKS_DIFFER' })
    assert.deepEqual(beginning.done, [])
  })

  it('ends when two more hosts were lost after it had begun', async () => {
    beginning.begun = { removed: [h1], by: h2 }
    beginning.up.delete(h4)
    beginning.up.delete(h5)
    await assert.rejects(beginning.remove(h4), { code: 'SUCCESSION_WAITS', message: /Host h5: / })
    await assert.rejects(beginning.remove(h5), GOES_ON)
    const [first, second] = ['h1,h4', 'h1,h4,h5']
    assert.deepEqual(beginning.done.slice(0, 2), [`claims for ${first}`, `removes ${first}`])
    assert.deepEqual(beginning.done.slice(2, 4), [`claims for ${second}`, `removes ${second}`])
  })

  it('names a host whose record cannot be read, and goes on without it when it is removed', async () => {
    const key = memberKey(h3)
    const foreign = serialiseMemberRecord(key, { version: 1, host: h4, admission: 'a', certificates: [] })
    for (const value of ['nonsense', foreign]) {
      beginning = new Beginning()
      beginning.writeMember(h3, value)
      await assert.rejects(beginning.remove(h1), { code: 'SUCCESSION_WAITS', message: /Host h3: / })
      beginning.begun = { removed: [h1], by: h2 }
      await assert.rejects(beginning.remove(h3), GOES_ON)
    }
  })

  it('does not mind what is under a key that names no host', async () => {
    beginning.store.transact('the test', [], [{ key: 'members/nobody', value: 'nonsense' }])
    await assert.rejects(beginning.remove(h1), GOES_ON)
  })

  it('goes on when the published list of revoked certificates is none, and only the lost host could mend it', async () => {
    const what = 'the list of revoked certificates'
    beginning.published = new XosanError('INVALID_ARGUMENT', { what, reason: 'it is none' })
    await assert.rejects(beginning.remove(h1), GOES_ON)
    beginning.published = new XosanError('COORDINATOR_UNAVAILABLE', { reason: 'it does not answer' })
    await assert.rejects(beginning.remove(h1), { code: 'COORDINATOR_UNAVAILABLE' })
  })

  it('ends in its time when the pool does not say who its hosts are', async () => {
    const path = await mkdtemp(join(tmpdir(), 'xosan-succession-'))
    beginning.directory = await TrustDirectory.open(join(path, 'trust'))
    const rig = await TrustRig.create()
    const own = { ...(await rig.credentials(rig.identity(h2))) }
    await beginning.directory.saveCredentials(own)
    await createSuccessor(beginning.directory, new Date())
    const authority = (await beginning.directory.ownAuthority())!
    await beginning.directory.saveAuthorities(own.authoritiesPem + authority.certificatePem)
    await assert.rejects(beginning.remove(h1, 1500), { code: 'DEADLINE_EXCEEDED' })
    await rm(path, { recursive: true })
  })
})
