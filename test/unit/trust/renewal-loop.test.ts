import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'
import { millis, type Millis } from '../../../core/units.ts'
import { type Clock, type Timer } from '../../../core/ports/clock.ts'
import { createAuthority, createHostKey } from '../../../trust/authority.ts'
import { CertificateAuthority } from '../../../trust/certificate-authority.ts'
import { certificateFacts, fingerprintOf } from '../../../trust/certificate.ts'
import { signerOf } from '../../../trust/issued-certificate.ts'
import { type Member, withCertificate, withoutCertificates } from '../../../trust/members.ts'
import { type RenewalEvent, Renewal } from '../../../trust/renewal-loop.ts'
import { renewalHandlers } from '../../../trust/renewal-server.ts'
import { type HostCredentials } from '../../../trust/trust-directory.ts'
import { IssuedInMemory, newHostId, TrustRig } from '../../support/trust-rig.ts'

const DAY_MS = 86_400_000
/** Some days before the certificate is to be renewed. */
const START = new Date('2030-01-01T12:00:00Z')
const ISSUED = new Date(START.getTime() - 240 * DAY_MS)
/** When it has been tried for the first time. */
const DUE_DAYS = 6

/** Goes to the next timer only when everything that the last one began has ended or waits for time. */
class PatientClock implements Clock {
  #now = 0
  readonly #timers = new Set<{ due: number; action: () => void }>()
  /** Work under way that does not wait for this clock. */
  busy = 0

  now(): Millis {
    return millis(this.#now)
  }

  after(delayMs: Millis, action: () => void): Timer {
    const timer = { due: this.#now + delayMs, action }
    this.#timers.add(timer)
    return { cancel: () => this.#timers.delete(timer) }
  }

  /** @param enough ends it early */
  async advance(durationMs: number, enough: () => boolean = () => false): Promise<void> {
    const end = this.#now + durationMs
    for (;;) {
      await this.#idle()
      if (enough()) return
      const [next] = [...this.#timers].filter(({ due }) => due <= end).sort((a, b) => a.due - b.due)
      if (next === undefined) break
      this.#timers.delete(next)
      this.#now = next.due
      next.action()
    }
    this.#now = end
  }

  async #idle(): Promise<void> {
    do await turn()
    while (this.busy > 0)
    await turn()
  }
}

type Step = 'newKey' | 'renew' | 'save' | 'use' | 'retire'
/** What becomes of a step: it fails before or after it has taken effect, or nothing is heard of it. */
type Fate = 'fails' | 'fails-after' | 'hangs' | 'hangs-after'

/** A host with a certificate, the holder of the authority, and the record on the list of members. */
class RenewalRig {
  readonly clock = new PatientClock()
  readonly events: RenewalEvent[] = []
  readonly steps: Step[] = []
  readonly issued = new IssuedInMemory()
  record!: Member
  /** What a restart finds. */
  disk!: HostCredentials
  /** What connections show. */
  shown!: HostCredentials
  /** What happens while a certificate is on its way to the host. */
  beforeAnswer: () => Promise<void> = async () => Promise.resolve()
  /** How far this host's time of day is off. */
  clockOffMs = 0
  authority: CertificateAuthority
  #fate: (step: Step) => Fate | null = () => null
  #renewal: Renewal | null = null
  #life = 0

  private constructor(authority: CertificateAuthority) {
    this.authority = authority
  }

  static async create(authorityRig?: TrustRig): Promise<RenewalRig> {
    const trust = authorityRig ?? (await TrustRig.create())
    const rig = new RenewalRig(new CertificateAuthority(trust.authority, new IssuedInMemory()))
    rig.authority = new CertificateAuthority(trust.authority, rig.issued)
    const identity = trust.identity(newHostId())
    const { keyPem, csrPem } = await createHostKey()
    const certificatePem = await rig.authority.issue({
      csrPem,
      host: identity.host,
      addresses: [],
      now: ISSUED,
    })
    rig.disk = { identity, keyPem, certificatePem, authoritiesPem: trust.authority.certificatePem }
    rig.shown = rig.disk
    rig.record = { host: identity.host, admission: 'a', certificates: [fingerprintOf(certificatePem)] }
    return rig
  }

  timeOfDay = (): Date => new Date(START.getTime() + this.clock.now())

  /** From now on. */
  failing(fate: (step: Step) => Fate | null): void {
    this.#fate = fate
  }

  /** Starts xosand, also again after it was killed: what was under way is never heard of again. */
  restart(): void {
    this.#renewal?.close()
    const life = ++this.#life
    this.shown = this.disk
    const handlers = renewalHandlers({
      authority: { issue: async request => this.authority.issue(request) },
      addressesOf: async () => Promise.resolve(['10.0.0.1']),
      addFingerprint: async (host, fingerprint, inUse) => {
        assert.equal(host, this.record.host)
        this.record = withCertificate(this.record, fingerprint, inUse)
        return Promise.resolve()
      },
      removeFingerprints: async (_, fingerprints) => {
        this.record = withoutCertificates(this.record, fingerprints)
        return Promise.resolve()
      },
      timeOfDay: this.timeOfDay,
    })
    const caller = { host: this.record.host }
    const step = async <T>(name: Step, effect: () => Promise<T>): Promise<T> => {
      this.steps.push(name)
      const fate = this.#fate(name)
      this.clock.busy += 1
      try {
        if (fate === 'fails') throw new Error(`${name} failed`)
        const result = fate === 'hangs' ? null : await effect()
        this.check()
        if (fate === 'fails-after') throw new Error(`the answer of ${name} was lost`)
        if (result !== null && fate === null && life === this.#life) return result
      } finally {
        this.clock.busy -= 1
      }
      return new Promise<never>(() => undefined)
    }
    this.#renewal = new Renewal(this.disk, {
      clock: this.clock,
      timeOfDay: () => new Date(this.timeOfDay().getTime() + this.clockOffMs),
      newKey: async () => step('newKey', createHostKey),
      renew: async request =>
        step('renew', async () => {
          const answer = await handlers['trust.renew'](request, caller)
          await this.beforeAnswer()
          return answer
        }),
      retire: async certificates =>
        step('retire', async () => {
          await handlers['trust.retire']({ certificates: [...certificates] }, caller)
          return true
        }),
      listed: () => this.record.certificates,
      save: async own => {
        await step('save', async () => {
          this.disk = { ...this.disk, ...own }
          return Promise.resolve(true)
        })
      },
      use: async () => {
        await step('use', async () => {
          this.shown = this.disk
          return Promise.resolve(true)
        })
      },
      report: event => this.events.push(event),
    })
    this.#renewal.start()
  }

  trust(authoritiesPem: string): void {
    this.disk = { ...this.disk, authoritiesPem }
    this.#renewal!.trust(authoritiesPem)
  }

  /** A day after its start the host is told to believe another authority, which is the one at work from then on. */
  async succeed(): Promise<{ readonly certificatePem: string }> {
    this.restart()
    await this.days(1)
    const successor = await createAuthority(this.authority.scope, START)
    this.authority = new CertificateAuthority(successor, this.issued)
    this.trust(this.disk.authoritiesPem + successor.certificatePem)
    return successor
  }

  /** Somebody else gives the host a certificate. */
  async given(authority: CertificateAuthority): Promise<void> {
    const { keyPem, csrPem } = await createHostKey()
    const { host } = this.disk.identity
    const request = { csrPem, host, addresses: [], now: this.timeOfDay() }
    const own = { keyPem, certificatePem: await authority.issue(request) }
    const inUse = fingerprintOf(this.disk.certificatePem)
    this.record = withCertificate(this.record, fingerprintOf(own.certificatePem), inUse)
    this.disk = { ...this.disk, ...own }
    this.shown = this.disk
    this.#renewal!.adopt(own)
  }

  stop(): void {
    this.#renewal?.close()
  }

  async days(count: number): Promise<void> {
    await this.clock.advance(count * DAY_MS)
    this.check()
  }

  /** Whatever happens: what this host shows, and would show after a restart, is on the list. */
  check(): void {
    for (const { certificatePem } of [this.shown, this.disk]) {
      assert.ok(this.record.certificates.includes(fingerprintOf(certificatePem)))
    }
    assert.ok(this.record.certificates.length <= 8)
  }

  kinds(): string[] {
    return this.events.map(({ kind }) => kind)
  }

  daysLeft(): number {
    const { notAfter } = certificateFacts(this.shown.certificatePem)!
    return Math.round((notAfter.getTime() - this.timeOfDay().getTime()) / DAY_MS)
  }
}

describe('the certificate of a host', function () {
  this.timeout(20_000)
  let rig: RenewalRig

  beforeEach(async () => {
    rig = await RenewalRig.create()
  })
  afterEach(() => rig.stop())

  it('is renewed a third of its time before its end, and the old one leaves the list a day later', async () => {
    rig.restart()
    await rig.days(DUE_DAYS - 1)
    assert.deepEqual(rig.steps, [])
    const old = fingerprintOf(rig.shown.certificatePem)
    await rig.days(1)
    assert.deepEqual(rig.steps, ['newKey', 'renew', 'save', 'use'])
    assert.equal(rig.daysLeft(), 364)
    assert.deepEqual(rig.record.certificates, [old, fingerprintOf(rig.shown.certificatePem)])
    await rig.days(1.5)
    assert.deepEqual(rig.record.certificates, [fingerprintOf(rig.shown.certificatePem)])
    assert.deepEqual(rig.kinds(), ['renewed'])
    await rig.days(300)
    assert.deepEqual([...new Set(rig.kinds())], ['renewed'])
  })

  it('is renewed every day until that works, and somebody is told after two months', async () => {
    rig.failing(() => 'fails')
    rig.restart()
    await rig.days(DUE_DAYS + 58)
    assert.deepEqual([...new Set(rig.kinds())], ['failed'])
    await rig.days(10)
    const last = rig.events.at(-1)
    assert.ok(last?.kind === 'ending' && /newKey failed/.test(last.reason) && last.daysLeft > 50)
    await rig.days(60)
    assert.ok(rig.events.at(-1)!.kind === 'ending')
    const ended = rig.events.at(-1)
    assert.ok(ended?.kind === 'ending' && ended.daysLeft < 0, 'it has ended')
    rig.failing(() => null)
    await rig.days(2)
    assert.equal(rig.events.at(-1)?.kind, 'renewed')
  })

  const FATES = ['fails', 'fails-after', 'hangs', 'hangs-after'] as const
  for (const name of ['newKey', 'renew', 'save', 'use', 'retire'] as const) {
    for (const fate of FATES) {
      it(`survives xosand being killed when ${name} ${fate.replace('-', ' ')}`, async () => {
        let left = 1
        rig.failing(step => (step === name && left-- > 0 ? fate : null))
        rig.restart()
        await rig.clock.advance(10 * DAY_MS, () => rig.steps.includes(name))
        rig.restart()
        await rig.days(4)
        assert.deepEqual(rig.record.certificates, [fingerprintOf(rig.disk.certificatePem)])
        assert.equal(rig.shown, rig.disk)
        assert.ok(rig.daysLeft() > 355)
      })
    }
  }

  for (const name of ['newKey', 'renew', 'save', 'use', 'retire'] as const) {
    it(`is renewed at last when ${name} fails nine times, its effect made or not`, async () => {
      let count = 0
      rig.failing(step =>
        step === name && ++count <= 9 ? (count % 2 === 0 ? 'fails' : 'fails-after') : null
      )
      rig.restart()
      await rig.days(DUE_DAYS + 25)
      assert.deepEqual(rig.record.certificates, [fingerprintOf(rig.shown.certificatePem)])
      assert.equal(rig.shown.certificatePem, rig.disk.certificatePem)
      assert.equal(
        rig.kinds().at(-1),
        name === 'save' || name === 'newKey' || name === 'renew' ? 'renewed' : 'failed'
      )
    })
  }

  for (const name of ['renew', 'retire'] as const) {
    it(`does not wait for ever for an answer to ${name}`, async () => {
      let left = 3
      rig.failing(step => (step === name && left-- > 0 ? 'hangs-after' : null))
      rig.restart()
      await rig.days(DUE_DAYS + 10)
      assert.deepEqual(rig.record.certificates, [fingerprintOf(rig.shown.certificatePem)])
      assert.ok(rig.daysLeft() > 350)
    })
  }

  it('leaves the list in order when answers are lost for months, and does not take the one in use from it', async () => {
    rig.failing(step => (step === 'renew' ? 'fails-after' : null))
    rig.restart()
    await rig.days(DUE_DAYS + 50)
    assert.equal(rig.record.certificates.length, 8)
    rig.failing(() => null)
    await rig.days(3)
    assert.equal(rig.record.certificates.length, 1)
  })

  it('is not replaced by what does not fit: of another host, another key, another clock', async () => {
    const other = await TrustRig.create()
    for (const wrong of ['authority', 'clock'] as const) {
      const good = rig.authority
      if (wrong === 'authority')
        rig.authority = new CertificateAuthority(other.authority, new IssuedInMemory())
      else rig.clockOffMs = 200 * DAY_MS
      rig.restart()
      const before = rig.disk
      await rig.days(10)
      assert.equal(rig.disk, before)
      assert.ok(!rig.kinds().includes('renewed'))
      rig.authority = good
    }
    rig.clockOffMs = 0
    await rig.days(2)
    assert.equal(rig.events.at(-1)?.kind, 'renewed')
  })

  it('is not asked for every day when the authority itself is about to end', async () => {
    const trust = await TrustRig.create()
    const old = await createAuthority(trust.authority.scope, new Date(START.getTime() - 3540 * DAY_MS))
    rig = await RenewalRig.create(Object.assign(trust, { authority: old }))
    assert.equal(rig.daysLeft(), 110)
    rig.restart()
    await rig.days(45)
    assert.ok(!rig.steps.includes('renew'))
    assert.ok(rig.events.every(event => 'reason' in event && /the authority itself ends/.test(event.reason)))
    await rig.days(10)
    assert.equal(rig.kinds().at(-1), 'ending')
  })

  it('is renewed at once when another authority is to be believed', async () => {
    const successor = await rig.succeed()
    await rig.days(1)
    assert.ok(signerOf(rig.shown.certificatePem, successor.certificatePem) !== null)
    await rig.days(2)
    assert.equal(rig.record.certificates.length, 1)
    assert.deepEqual(rig.kinds(), ['renewed'])
  })

  it('goes on with a certificate that it was given by another authority', async () => {
    await rig.succeed()
    await rig.given(rig.authority)
    await rig.days(3)
    assert.deepEqual(rig.steps, ['retire'], 'nothing is to be renewed')
    assert.equal(rig.record.certificates.length, 1)
    assert.deepEqual(rig.events, [])
  })

  it('does not keep what it asked for itself when it was given another certificate meanwhile', async () => {
    await rig.succeed()
    rig.beforeAnswer = async () => rig.given(rig.authority)
    await rig.days(4)
    assert.deepEqual(rig.steps, ['newKey', 'renew', 'retire'])
    assert.equal(rig.record.certificates.length, 1)
  })
})
