import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { type HostId } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { RpcClient } from '../../../rpc/client.ts'
import { RpcServer } from '../../../rpc/server.ts'
import { certificateFacts } from '../../../trust/certificate.ts'
import { CertificateAuthority } from '../../../trust/certificate-authority.ts'
import { enrol } from '../../../trust/enrol.ts'
import { Enrolment } from '../../../trust/enrolment.ts'
import { createEnrolmentServer } from '../../../trust/enrolment-server.ts'
import { type Member } from '../../../trust/members.ts'
import { parseTicket, type Ticket, ticketText } from '../../../trust/ticket.ts'
import { type HostCredentials } from '../../../trust/trust-directory.ts'
import { IssuedInMemory, newHostId, TrustRig } from '../../support/trust-rig.ts'

const clock = createNodeClock()

describe('a host that joins', () => {
  let rig: TrustRig
  let holder: HostCredentials
  let enrolment: Enrolment
  let server: ReturnType<typeof createEnrolmentServer>
  let port: number
  let members: Member[]
  let issued: IssuedInMemory
  const logged: unknown[] = []

  beforeEach(async () => {
    rig = await TrustRig.create()
    holder = await rig.credentials()
    members = [rig.enlist(holder)]
    issued = new IssuedInMemory()
    enrolment = new Enrolment({ clock, randomBytes })
    server = createEnrolmentServer({
      authority: new CertificateAuthority(rig.authority, issued),
      credentials: holder,
      enrolment,
      clock,
      log: event => logged.push(event),
      admit: async member => {
        members.push(member)
        rig.members.replace(members)
        return Promise.resolve(members)
      },
    })
    port = await server.listen('127.0.0.1', 0)
  })

  afterEach(async () => {
    rig.close()
    await server.close()
  })

  const ticketFor = (host: HostId): Ticket => ({
    ...rig.authority.scope,
    host,
    holder: { host: holder.identity.host, address: '127.0.0.1', port },
    authorityPem: rig.authority.certificatePem,
    ...enrolment.invite({ host, addresses: ['127.0.0.1'] }),
  })
  const join = async (ticket: Ticket, now = new Date()) =>
    enrol(parseTicket(ticketText(ticket)), { clock, deadlineMs: 10_000, now })

  it('is a member at once, and can call and be called', async () => {
    const host = newHostId()
    const { credentials, members: told } = await join(ticketFor(host))
    assert.deepEqual(told.map(member => member.host).sort(), [holder.identity.host, host].sort())
    assert.ok(!JSON.stringify([logged, told]).includes('PRIVATE'))
    const { serial } = certificateFacts(credentials.certificatePem)!
    assert.deepEqual(issued.serialsOf(host), [serial])
    const rpc = new RpcServer({ log: () => undefined })
    rpc.register('who', z.object({}), () => host)
    const address = {
      host: '127.0.0.1',
      port: await rpc.listenTls('127.0.0.1', 0, rig.transport(credentials)),
    }
    const client = new RpcClient({ address, clock, dialer: rig.transport(holder).to(host) })
    assert.equal(await client.call('who', {}, z.string(), { deadlineMs: 10_000 }), host)
    client.close()
    await rpc.close()
  })

  it('needs a ticket of its own, which is good once', async () => {
    const ticket = ticketFor(newHostId())
    await assert.rejects(join({ ...ticket, secret: 'x'.repeat(43) }), { code: 'ENROLMENT_REFUSED' })
    await join(ticket)
    await assert.rejects(join(ticket), { code: 'ENROLMENT_REFUSED' })
    assert.equal(members.length, 2)
  })

  it('gets the name on the ticket that was opened, whatever it says of itself', async () => {
    const ticket = ticketFor(newHostId())
    await assert.rejects(join({ ...ticket, host: newHostId() }), /not for this host/)
  })

  it('gets no certificate when that cannot be noted', async () => {
    issued.failing = new Error('no space left on device')
    await assert.rejects(join(ticketFor(newHostId())), { code: 'INTERNAL' })
    assert.equal(members.length, 1)
  })

  it('shows its secret to nobody whom the authority of the ticket does not vouch for', async () => {
    const other = await TrustRig.create()
    const ticket = ticketFor(newHostId())
    await assert.rejects(join({ ...ticket, authorityPem: other.authority.certificatePem }), {
      code: 'PEER_UNREACHABLE',
    })
    await assert.rejects(join({ ...ticket, holder: { ...ticket.holder, host: newHostId() } }), {
      code: 'PEER_NOT_TRUSTED',
    })
    assert.equal((await join(ticket)).credentials.identity.host, ticket.host)
  })

  it('does not join with a clock that is wrong by a month', async () => {
    await assert.rejects(join(ticketFor(newHostId()), new Date(Date.now() + 31 * 86_400_000)), /clocks/)
  })
})
