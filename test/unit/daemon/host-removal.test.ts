import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { hostKey, memberKey } from '../../../cluster/keys.ts'
import { type HostRecord, type SrRecord } from '../../../cluster/records.ts'
import { XosanError } from '../../../core/errors.ts'
import { type Change, type Coordinator } from '../../../core/ports/coordinator.ts'
import { type HostId, type SrId } from '../../../core/units.ts'
import { removeHost } from '../../../daemon/cluster/host-removal.ts'
import { createLog } from '../../../daemon/log.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { type HostAgent } from '../../../volume/context.ts'

const [h1, h2, h3] = [1, 2, 3].map(() => randomUUID() as HostId) as [HostId, HostId, HostId]
const hosts = [h1, h2, h3].map((host, i) => ({ host, name: `h${i + 1}` })) as unknown as HostRecord[]

/** Removing a host on h2, with what is done told in words, in order. */
class Removing {
  readonly done: string[] = []
  /** The SR's record: h1 made it. */
  record: { authority?: HostId; succession?: { removed: HostId; by: HostId } } = {}
  /** Hosts that are known. */
  known = hosts
  /** What fails, of what is done. */
  fails = ''

  async remove(wanted: string) {
    const nameOf = (host: HostId) => hosts.find(each => each.host === host)!.name
    const coordinator = {
      transact: async (_: unknown, changes: readonly Change[]) => {
        for (const { host, name } of hosts) {
          const keys = changes.map(({ key }) => key)
          if (keys.includes(memberKey(host))) this.#do(`${name} is no member`)
          if (keys.includes(hostKey(host))) this.#do(`${name} is no host`)
        }
        return Promise.resolve({ committed: true, revision: 2, current: [] })
      },
    } as unknown as Coordinator
    return removeHost(wanted, {
      self: h2,
      sr: randomUUID() as SrId,
      coordinator,
      clock: createNodeClock(),
      random: nodeRandom,
      log: createLog('test', 'error'),
      hosts: this.known,
      agent: host => ({ peer: async () => this.#later(`${nameOf(host)} revokes`) }) as unknown as HostAgent,
      record: { read: async () => Promise.resolve({ createdBy: h1, ...this.record } as SrRecord) },
      succession: {
        carryOut: async (_, removed, __, remove) => {
          await this.#later('all answer')
          await remove()
          await this.#later(`h2 succeeds ${nameOf(removed)}`)
        },
        finish: async () => this.#later('done'),
      },
    })
  }

  #do(what: string): void {
    if (what === this.fails) throw new XosanError('PEER_UNREACHABLE', { host: 'it', reason: what })
    this.done.push(what)
  }

  async #later(what: string): Promise<void> {
    await Promise.resolve()
    this.#do(what)
  }
}

const BY_SUCCESSION = [
  'all answer',
  'h1 is no member',
  'h2 succeeds h1',
  'h1 is no member',
  'h1 is no host',
  'done',
]

describe('removing a host', () => {
  let removing: Removing
  beforeEach(() => (removing = new Removing()))

  it('has its certificates revoked before its records go, which it could write again', async () => {
    assert.deepEqual(await removing.remove('h3'), { host: h3, revoked: true, successor: null })
    assert.deepEqual(removing.done, ['h1 revokes', 'h3 is no member', 'h3 is no host'])
  })

  it('asks the host that holds the authority now, which need not be the first one', async () => {
    removing.record = { authority: h2 }
    assert.deepEqual(await removing.remove('h1'), { host: h1, revoked: true, successor: null })
    assert.deepEqual(removing.done, ['h2 revokes', 'h1 is no member', 'h1 is no host'])
  })

  it('goes on when the holder of the authority cannot be asked, and says so', async () => {
    removing.fails = 'h1 revokes'
    assert.deepEqual(await removing.remove(h3), { host: h3, revoked: false, successor: null })
  })

  it('makes this host the holder when the removed one was, and takes its records away again after that', async () => {
    assert.deepEqual(await removing.remove('h1'), { host: h1, revoked: true, successor: h2 })
    assert.deepEqual(removing.done, BY_SUCCESSION)
  })

  it('changes nothing when not all answer', async () => {
    removing.fails = 'all answer'
    await assert.rejects(removing.remove('h1'))
    assert.deepEqual(removing.done, [])
  })

  it('finishes a succession that was broken off, whoever holds the authority and has a record by then', async () => {
    removing.record = { authority: h2, succession: { removed: h1, by: h2 } }
    removing.known = hosts.slice(1)
    assert.deepEqual(await removing.remove(h1), { host: h1, revoked: true, successor: h2 })
    assert.deepEqual(removing.done, BY_SUCCESSION)
  })

  it('finishes it before another host is removed, which the new authority can revoke', async () => {
    removing.record = { authority: h3, succession: { removed: h1, by: h3 } }
    assert.deepEqual(await removing.remove('h3'), { host: h3, revoked: true, successor: h2 })
    assert.deepEqual(removing.done, [
      ...BY_SUCCESSION,
      ...BY_SUCCESSION.map(what => what.replace('h1', 'h3')),
    ])
  })

  it('does not remove the host where it is said, or one that is not there', async () => {
    for (const wanted of ['h2', h2, 'h9']) {
      await assert.rejects(removing.remove(wanted), { code: 'INVALID_ARGUMENT' })
    }
    assert.deepEqual(removing.done, [])
  })
})
