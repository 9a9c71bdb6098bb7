import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { hostKey, memberKey } from '../../../cluster/keys.ts'
import { type HostRecord, serialiseMemberRecord, type SrRecord } from '../../../cluster/records.ts'
import { XosanError } from '../../../core/errors.ts'
import { type Coordinator } from '../../../core/ports/coordinator.ts'
import { type HostId, type SrId } from '../../../core/units.ts'
import { removeHost, resumeSuccession } from '../../../daemon/cluster/host-removal.ts'
import { createLog } from '../../../daemon/log.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { type HostAgent } from '../../../volume/context.ts'

const [h1, h2, h3] = [1, 2, 3].map(() => randomUUID() as HostId) as [HostId, HostId, HostId]
const hosts = [h1, h2, h3].map((host, i) => ({ host, name: `h${i + 1}` })) as unknown as HostRecord[]

/** Removing a host on h2, with what is done told in words, in order. */
class Removing {
  readonly done: string[] = []
  /** The SR's record: h1 made it. */
  record: { authority?: HostId; succession?: { removed: HostId[]; by: HostId } } = {}
  /** Hosts that are known. */
  known = hosts
  /** Hosts with a record as members. */
  members = [h1, h2, h3]
  unreadable: HostId | null = null
  /** What fails, of what is done. */
  fails = ''

  async remove(wanted: string) {
    return removeHost(wanted, this.#options())
  }

  async resume() {
    await resumeSuccession(this.#options())
  }

  #options(): Parameters<typeof removeHost>[1] {
    const nameOf = (host: HostId) => hosts.find(each => each.host === host)!.name
    const coordinator = {
      list: async () =>
        Promise.resolve({
          entries: this.members.map(host => ({
            ...memberEntry(host),
            ...(host === this.unreadable ? { value: 'nonsense' } : {}),
          })),
          revision: 1,
        }),
    } as unknown as Coordinator
    return {
      self: h2,
      sr: randomUUID() as SrId,
      coordinator,
      clock: createNodeClock(),
      log: createLog('test', 'error'),
      hosts: this.known,
      agent: host => ({ peer: async () => this.#later(`${nameOf(host)} revokes`) }) as unknown as HostAgent,
      record: {
        read: async () => Promise.resolve({ createdBy: h1, ...this.record } as unknown as SrRecord),
        remove: async (_, holder, keys) => {
          for (const { host, name } of hosts) {
            if (keys.includes(memberKey(host)) && keys.includes(hostKey(host)))
              await this.#later(`${name} goes, as ${nameOf(holder)} holds the authority`)
          }
        },
      },
      succession: {
        carryOut: async (_, removed) => this.#later(`h2 succeeds without ${nameOf(removed)}`),
      },
    }
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

const BY_SUCCESSION = ['h2 succeeds without h1']

function memberEntry(host: HostId) {
  const key = memberKey(host)
  return { key, value: serialiseMemberRecord(key, { version: 1, host, admission: 'a', certificates: [] }) }
}

describe('removing a host', () => {
  let removing: Removing
  beforeEach(() => (removing = new Removing()))

  it('has its certificates revoked before its records go, which it could write again', async () => {
    assert.deepEqual(await removing.remove('h3'), { host: h3, revoked: true, successor: null })
    assert.deepEqual(removing.done, ['h1 revokes', 'h3 goes, as h1 holds the authority'])
  })

  it('asks the host that holds the authority now, which need not be the first one', async () => {
    removing.record = { authority: h2 }
    assert.deepEqual(await removing.remove('h1'), { host: h1, revoked: true, successor: null })
    assert.deepEqual(removing.done, ['h2 revokes', 'h1 goes, as h2 holds the authority'])
  })

  it('goes on when the holder of the authority cannot be asked, and says so', async () => {
    removing.fails = 'h1 revokes'
    assert.deepEqual(await removing.remove(h3), { host: h3, revoked: false, successor: null })
  })

  it('makes this host the holder when the removed one was', async () => {
    assert.deepEqual(await removing.remove('h1'), { host: h1, revoked: true, successor: h2 })
    assert.deepEqual(removing.done, BY_SUCCESSION)
  })

  it('leaves a succession that fails for the next time', async () => {
    removing.fails = BY_SUCCESSION[0]!
    await assert.rejects(removing.remove('h1'))
    assert.deepEqual(removing.done, [])
  })

  it('finishes one that was broken off, whoever holds the authority and has a record by then', async () => {
    removing.record = { authority: h2, succession: { removed: [h1], by: h2 } }
    removing.known = hosts.slice(1)
    removing.members = [h2, h3]
    assert.deepEqual(await removing.remove(h1), { host: h1, revoked: true, successor: h2 })
    assert.deepEqual(removing.done, BY_SUCCESSION)
  })

  it('finishes it without a host that was lost meanwhile, be it the one that had begun', async () => {
    for (const by of [h2, h3]) {
      removing = new Removing()
      removing.record = { succession: { removed: [h1], by } }
      assert.deepEqual(await removing.remove('h3'), { host: h3, revoked: true, successor: h2 })
      assert.deepEqual(removing.done, ['h2 succeeds without h3'])
    }
  })

  it('finds the host that has begun it, whatever lists it is on', async () => {
    removing.record = { succession: { removed: [h1], by: h3 } }
    removing.known = hosts.slice(0, 2)
    removing.members = [h1, h2]
    assert.deepEqual(await removing.remove(h3), { host: h3, revoked: true, successor: h2 })
  })

  it('is gone on with by the host that has begun a succession, and by no other', async () => {
    removing.record = { succession: { removed: [h1, h3], by: h2 } }
    await removing.resume()
    assert.deepEqual(removing.done, BY_SUCCESSION)
    for (const begun of [{}, { succession: { removed: [h1], by: h3 } }]) {
      removing.record = begun
      await removing.resume()
    }
    assert.deepEqual(removing.done, BY_SUCCESSION)
  })

  it('finds a member that never got as far as to have a record as a host', async () => {
    removing.known = hosts.slice(0, 2)
    assert.deepEqual(await removing.remove(h3), { host: h3, revoked: true, successor: null })
  })

  it('removes a host whose record cannot be read, and others in spite of it', async () => {
    removing.unreadable = h3
    assert.deepEqual(await removing.remove(h3), { host: h3, revoked: true, successor: null })
    assert.deepEqual(await removing.remove('h1'), { host: h1, revoked: true, successor: h2 })
  })

  it('does not remove the host where it is said, or one that is not there', async () => {
    for (const wanted of ['h2', h2, 'h9', randomUUID()]) {
      await assert.rejects(removing.remove(wanted), { code: 'INVALID_ARGUMENT' })
    }
    assert.deepEqual(removing.done, [])
  })
})
