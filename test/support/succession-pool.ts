/** Hosts with real files of trust, whose authority is on the first one, and a way to end any xosand at any moment. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { HOSTS_PREFIX, hostKey, memberKey, MEMBERS_PREFIX, REVOKED_KEY, srKey } from '../../cluster/keys.ts'
import {
  parseHostRecord,
  parseMemberRecord,
  parseSrRecord,
  serialiseHostRecord,
  serialiseMemberRecord,
  serialiseSrRecord,
} from '../../cluster/records.ts'
import { XosanError } from '../../core/errors.ts'
import { type HostId, type SrId } from '../../core/units.ts'
import { controlApi } from '../../rpc/control-api.ts'
import { type Pool, type PoolMethod } from '../../daemon/cluster/pool.ts'
import { type Authority, createAuthority, createHostKey } from '../../trust/authority.ts'
import { CertificateAuthority } from '../../trust/certificate-authority.ts'
import { certificateFacts, fingerprintOf } from '../../trust/certificate.ts'
import { signerOf } from '../../trust/issued-certificate.ts'
import { type Member } from '../../trust/members.ts'
import { TrustDirectory } from '../../trust/trust-directory.ts'
import { Deadline } from '../../volume/deadline.ts'
import { SimulatedCoordinator } from '../simulator/simulated-coordinator.ts'
import { HurriedClock } from './hurried-clock.ts'
import { fastDirectory } from './etcd-cluster.ts'
import { type SuccessionHost, type Surroundings, Xosand } from './succession-xosand.ts'
import { newHostId } from './trust-rig.ts'

/** What is made once: keys and certificates take most of the time of a run. */
export interface OldTrust {
  readonly sr: SrId
  readonly authority: Authority
  /** What the first host has on disk as the authority's. */
  readonly issued: Parameters<Parameters<TrustDirectory['changeIssued']>[0]>[0]
  readonly revokedPem: string
  /** Of a host that was removed long ago. */
  readonly revokedSerial: string
  readonly hosts: readonly (Member & { readonly keyPem: string; readonly certificatePem: string })[]
}

export async function createOldTrust(count: number): Promise<OldTrust> {
  const sr = randomUUID() as SrId
  const authority = await createAuthority({ sr, generation: 1 }, new Date())
  let issued: OldTrust['issued'] = []
  const issuing = new CertificateAuthority(authority, {
    changeIssued: async change => Promise.resolve((issued = change(issued))),
  })
  const issue = async (host: HostId) => {
    const { keyPem, csrPem } = await createHostKey()
    const certificatePem = await issuing.issue({ csrPem, host, addresses: ['127.0.0.1'], now: new Date() })
    return {
      host,
      admission: randomUUID(),
      keyPem,
      certificatePem,
      certificates: [fingerprintOf(certificatePem)],
    }
  }
  const gone = await issue(newHostId())
  const hosts = await Promise.all(Array.from({ length: count }, async () => issue(newHostId())))
  const revokedPem = await issuing.revoke(gone.host, new Date())
  return {
    sr,
    authority,
    issued,
    revokedPem,
    revokedSerial: certificateFacts(gone.certificatePem)!.serial,
    hosts,
  }
}

export class SuccessionPool {
  readonly hosts: readonly SuccessionHost[]
  readonly clock = new HurriedClock()
  readonly coordinator = new SimulatedCoordinator({ clock: this.clock })
  /** What was done, in order, in words. */
  readonly done: string[] = []
  /** What somebody's death came with. */
  diedWith: string | null = null
  #death: { after: number; readonly victim: SuccessionHost; counts(what: string): boolean } | null = null
  readonly warnings: string[] = []
  readonly #old: OldTrust
  readonly #directory: string
  readonly #awaited = new Map<string, () => void>()
  #hanging: {
    readonly host: SuccessionHost
    readonly method: PoolMethod
    readonly calls: (() => Promise<unknown>)[]
  } | null = null
  readonly #running = new Map<HostId, Xosand>()

  private constructor(directory: string, old: OldTrust) {
    this.#directory = directory
    this.#old = old
    this.hosts = old.hosts.map(({ host }, i) => ({
      uuid: host,
      name: `h${i + 1}`,
      address: '127.0.0.1',
      trustPath: join(directory, `h${i + 1}`),
      etcdTrusts: old.authority.certificatePem,
    }))
  }

  /** All hosts but the first have a running xosand. */
  static async create(old: OldTrust): Promise<SuccessionPool> {
    const pool = new SuccessionPool(await mkdtemp(join(fastDirectory(), 'xosan-succession-')), old)
    await pool.#write()
    for (const host of pool.hosts.slice(1)) await pool.start(host)
    return pool
  }

  async close(): Promise<void> {
    for (const host of this.hosts) this.kill(host)
    await rm(this.#directory, { recursive: true, force: true, maxRetries: 5 })
  }

  /** @throws when it does not run */
  xosand(host: SuccessionHost): Xosand {
    const running = this.#running.get(host.uuid)
    if (running === undefined) throw new Error(`${host.name} is down`)
    return running
  }

  async start(host: SuccessionHost): Promise<void> {
    if (!this.#running.has(host.uuid)) this.#running.set(host.uuid, await Xosand.start(host, this.#around()))
  }

  /**
   * Ends the xosand of a host as soon as one more thing has been done, after so many others.
   * @param counts which things, in the words of `done`
   */
  killAfter(after: number, victim: SuccessionHost, counts: (what: string) => boolean): void {
    this.#death = { after, victim, counts }
  }

  kill(host: SuccessionHost): void {
    this.#running.get(host.uuid)?.kill()
    this.#running.delete(host.uuid)
    if (this.#hanging?.host === host) this.#hanging = null
  }

  isUp(host: SuccessionHost): boolean {
    return this.#running.has(host.uuid)
  }

  /** Resolves when something is done next; `then` is called in the same moment. @param what in the words of `done` */
  async next(what: string, then: () => void = () => undefined): Promise<void> {
    await new Promise<void>(resolve => {
      this.#awaited.set(what, () => {
        then()
        resolve()
      })
    })
  }

  /**
   * Lets a host take calls of a kind, and not answer.
   * @returns what ends that: it does what it was asked meanwhile
   */
  hangs(host: SuccessionHost, method: PoolMethod): () => Promise<void> {
    const calls: (() => Promise<unknown>)[] = []
    this.#hanging = { host, method, calls }
    return async () => {
      this.#hanging = null
      await Promise.all(calls.map(async call => call()))
    }
  }

  /** Whether a host has taken the place, and nothing is left to do: then nobody can name the removed one any more. */
  isDone(successor: SuccessionHost): boolean {
    const { authority, succession } = this.#record()
    return authority === successor.uuid && succession === undefined
  }

  /** Fails unless the successor's authority is the only one that anything trusts, and the others are members by it. */
  async check(successor: SuccessionHost, removed: readonly SuccessionHost[]): Promise<void> {
    const left = this.hosts.filter(host => !removed.includes(host))
    const { authority: holder, succession } = this.#record()
    assert.deepEqual([holder, succession], [successor.uuid, undefined], "the SR's record")
    const members = this.coordinator.list(MEMBERS_PREFIX).entries.map(e => parseMemberRecord(e.key, e.value))
    const hosts = this.coordinator.list(HOSTS_PREFIX).entries.map(e => parseHostRecord(e.key, e.value).host)
    const ids = left.map(({ uuid }) => uuid).sort()
    assert.deepEqual([members.map(({ host }) => host).sort(), hosts.sort()], [ids, ids], 'the lists')

    const holding = await TrustDirectory.open(successor.trustPath)
    const authority = (await holding.authority())!
    const published = this.coordinator.read(REVOKED_KEY).entry?.value ?? null
    assert.ok(await authority.isComplete(published), 'the published list of revoked certificates')
    assert.deepEqual([...(await authority.holders())].sort(), ids, 'who was certified and not revoked')
    const { keyPem, csrPem } = await createHostKey()
    const forged = await this.#oldAuthority().issue({ csrPem, host: ids[0]!, addresses: [], now: new Date() })
    assert.match(keyPem, /PRIVATE KEY/)

    for (const host of left) {
      const directory = await TrustDirectory.open(host.trustPath)
      const { authoritiesPem, certificatePem } = (await directory.credentials())!
      assert.equal(authoritiesPem, authority.certificatePem, `${host.name} trusts the successor alone`)
      assert.equal(host.etcdTrusts, authoritiesPem, `etcd of ${host.name} does`)
      assert.ok(signerOf(certificatePem, authoritiesPem) !== null, `${host.name} is certified`)
      const { fingerprint, serial } = certificateFacts(certificatePem)!
      const listed = members.find(member => member.host === host.uuid)!.certificates
      assert.ok(listed.includes(fingerprint), `the certificate of ${host.name} is on its record`)
      const revoked = await directory.revoked()
      assert.ok(!revoked.includes(serial), `the certificate of ${host.name} is not revoked`)
      assert.ok(revoked.includes(this.#old.revokedSerial), `${host.name} knows what was revoked before`)
      assert.equal((await directory.authority()) !== null, host === successor, `an authority on ${host.name}`)
      for (const old of [forged, ...this.#old.hosts.map(each => each.certificatePem)]) {
        assert.equal(
          signerOf(old, authoritiesPem),
          null,
          `${host.name} and certificates of the old authority`
        )
      }
      const { credentials } = this.xosand(host)
      assert.deepEqual(credentials, await directory.credentials(), `what the programs of ${host.name} use`)
    }
  }

  async #write(): Promise<void> {
    const { sr, authority, issued, revokedPem, hosts } = this.#old
    const members = hosts.map(({ host, admission, certificates }) => ({ host, admission, certificates }))
    for (const [i, host] of hosts.entries()) {
      const directory = await TrustDirectory.open(this.hosts[i]!.trustPath)
      await directory.saveCredentials({ ...host, authoritiesPem: authority.certificatePem })
      await directory.saveMembers(members)
      await directory.saveRevocationList(revokedPem)
    }
    const first = await TrustDirectory.open(this.hosts[0]!.trustPath)
    await first.saveAuthority(authority)
    await first.changeIssued(() => issued)
    const records = members.map(member => {
      const key = memberKey(member.host)
      return { key, value: serialiseMemberRecord(key, { version: 1, ...member }) }
    })
    const known = this.hosts.map(({ uuid: host, name, address }) => {
      const key = hostKey(host)
      const ports = { peer: 1, datapath: [], nbd: [] }
      return {
        key,
        value: serialiseHostRecord(key, { version: 1, host, name, address, ports, datapaths: 0 }),
      }
    })
    const value = serialiseSrRecord(srKey(sr), {
      version: 1,
      sr,
      name: 'sr',
      description: '',
      generation: 1,
      configuration: { copies: 2, headroom: { unit: 'fraction', amount: 0.1 } },
      hosts: members.map(({ host }) => host),
      createdBy: members[0]!.host,
    })
    const changes = [...records, ...known, { key: srKey(sr), value }, { key: REVOKED_KEY, value: revokedPem }]
    this.coordinator.transact('the test', [], changes)
  }

  #record() {
    const key = srKey(this.#old.sr)
    return parseSrRecord(key, this.coordinator.read(key).entry!.value)
  }

  /** Whoever has the old key can go on issuing. */
  #oldAuthority(): CertificateAuthority {
    return new CertificateAuthority(this.#old.authority, {
      changeIssued: async change => Promise.resolve(change([])),
    })
  }

  #around(): Surroundings {
    const quiet = (): void => undefined
    return {
      clock: this.clock,
      sr: this.#old.sr,
      coordinator: (name, deliver) => this.coordinator.client(name, deliver),
      did: (host, what) => this.#did(`${host.name} ${what}`),
      pool: caller => this.#poolOf(caller),
      log: {
        error: quiet,
        warn: (text, facts) => void this.warnings.push(`${text} ${JSON.stringify(facts)}`),
        info: quiet,
        debug: quiet,
      },
    }
  }

  #did(what: string): void {
    this.done.push(what)
    const awaited = this.#awaited.get(what)
    this.#awaited.delete(what)
    awaited?.()
    if (this.#death?.counts(what) !== true || this.#death.after-- > 0) return
    const { victim } = this.#death
    this.#death = null
    this.diedWith = what
    this.kill(victim)
  }

  #poolOf(caller: Xosand): Pool {
    const gone = async (): Promise<never> => new Promise<never>(() => undefined)
    return {
      hosts: async () => Promise.resolve(this.hosts),
      call: async (id, method, params, deadlineMs) => {
        if (!caller.alive) return gone()
        const host = this.hosts.find(({ uuid }) => uuid === id)!
        const called = this.#running.get(id)
        if (called === undefined) {
          throw new XosanError('PEER_UNREACHABLE', { host: host.name, reason: 'it is down' })
        }
        // From here on the call goes on without who has made it.
        const asked = structuredClone(params)
        const hanging = this.#hanging?.host === host && this.#hanging.method === method ? this.#hanging : null
        hanging?.calls.push(async () => called.serve(method, asked))
        const answer = hanging === null ? called.serve(method, asked) : called.ended
        this.#did(`${caller.host.name} calls ${host.name} ${method}`)
        const answered = new Deadline(this.clock, method, deadlineMs).race(
          Promise.race([answer, called.ended])
        )
        await answered.catch(() => undefined)
        if (!this.#isRunning(caller)) return gone()
        return controlApi[method].result.parse((await answered) ?? null) as never
      },
    }
  }

  #isRunning(xosand: Xosand): boolean {
    return this.#running.get(xosand.host.uuid) === xosand
  }
}
