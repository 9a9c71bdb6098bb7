import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { byteOffset, millis } from '../../../core/units.ts'
import { type NbdListener } from '../../../datapath/nbd-server/nbd-server.ts'
import { NbdClient } from '../../../datapath/replica-remote/nbd-client.ts'
import { type HostCredentials } from '../../../trust/trust-directory.ts'
import { CLIENT_OPTIONS, NbdRig } from '../../support/nbd-rig.ts'
import { TrustRig } from '../../support/trust-rig.ts'

/** The start of a TLS record of 16 KiB that never comes. */
const HALF_A_HELLO = Buffer.from('16030140000100', 'hex')
const FLOOD = 1000
const BLOCK = 4096

describe('a flood of connections that do not authenticate', () => {
  let trust: TrustRig
  let nbd: NbdRig
  let credentials: HostCredentials
  let listener: NbdListener
  const attackers: Socket[] = []

  beforeEach(async () => {
    trust = await TrustRig.create()
    credentials = await trust.credentials()
    trust.enlist(credentials)
    nbd = await NbdRig.start()
    listener = await nbd.server.listenTls('127.0.0.1', 0, trust.transport(credentials))
  })

  afterEach(async () => {
    for (const attacker of attackers.splice(0)) attacker.destroy()
    trust.close()
    await nbd.stop()
  })

  const member = async (): Promise<NbdClient> => {
    const own = await trust.credentials()
    trust.enlist(own)
    const dialer = trust.transport(own).to(credentials.identity.host)
    const address = { host: '127.0.0.1', port: listener.port }
    return NbdClient.connect({ ...CLIENT_OPTIONS, address, dialer }, millis(15_000))
  }

  /** Connects from an address of this machine, and says what it is told to. */
  const attack = async (localAddress: string, bytes: Buffer | null): Promise<void> => {
    const socket = connect({ host: '127.0.0.1', port: listener.port, localAddress })
    attackers.push(socket)
    await new Promise<void>(resolve => {
      socket.once('connect', () => {
        if (bytes !== null) socket.write(bytes)
        resolve()
      })
      socket.once('error', () => resolve())
    })
    socket.on('error', () => undefined)
    socket.resume()
  }

  it('does not touch the I/O of members, lets new ones in, and is logged in a few lines', async () => {
    const device = await member()
    let writes = 0
    let over = false
    const load = (async () => {
      while (!over) {
        const offset = byteOffset((writes % 1000) * BLOCK)
        const data = Buffer.alloc(BLOCK, `write ${writes}`)
        await device.write({ offset, data, durable: true })
        const read = Buffer.alloc(BLOCK)
        await device.read(offset, read)
        assert.ok(read.equals(data), `what write ${writes} wrote`)
        writes += 1
      }
    })()
    const flood = Array.from({ length: FLOOD }, async (_, index) =>
      attack(`127.0.0.${2 + (index % 3)}`, index % 2 === 0 ? null : HALF_A_HELLO)
    )
    const newcomer = await member()
    await newcomer.flush()
    await Promise.all(flood)
    const before = writes
    await newcomer.close()
    await (await member()).close()
    over = true
    await load
    assert.ok(writes > before, 'the load went on')
    await nbd.closedConnections(2)
    assert.equal(nbd.server.connections, 1)
    await device.close()
    const causes = new Set(trust.refusals.map(({ cause }) => cause))
    assert.ok(causes.has('too-many-half-open'))
    assert.ok(trust.refusals.length <= 3 * causes.size, 'one line per address and cause')
  })
})
