/**
 * `npm run trust-attack`: everything that somebody without a valid certificate can do to a listener, while a member's
 * verified load goes on. Server, member and attacker are processes of their own. Ends with a table, and with 1 if
 * anybody got in, a read differed, a member was refused, or the log was flooded.
 *
 *     npm run trust-attack -- [half-open connections]
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect as connectPlain } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { connect as connectTls } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { byteOffset, millis } from '../../core/units.ts'
import { createNodeClock } from '../../daemon/ports/node-clock.ts'
import { NbdClient } from '../../datapath/replica-remote/nbd-client.ts'
import { RpcServer } from '../../rpc/server.ts'
import { MemberList } from '../../trust/members.ts'
import { type RefusalEvent } from '../../trust/refusal-log.ts'
import { type HostCredentials, TrustDirectory } from '../../trust/trust-directory.ts'
import { TrustedTransport } from '../../trust/trusted-transport.ts'
import { CLIENT_OPTIONS, NbdRig } from '../support/nbd-rig.ts'
import { TrustRig } from '../support/trust-rig.ts'

const DEPTH = 32
const BLOCK = 4096
const LOAD_BLOCKS = 8192

/** What the server process prints, a line each. */
type ServerLine =
  | { readonly nbd: number; readonly rpc: number }
  | { readonly refused: RefusalEvent }
  | { readonly residentMib: number }

const say = (line: ServerLine): void => void process.stdout.write(`${JSON.stringify(line)}\n`)

/** A host with an NBD and an RPC port. */
async function serve(directory: string): Promise<void> {
  const trust = await TrustDirectory.open(directory)
  const transport = new TrustedTransport({
    credentials: (await trust.credentials())!,
    members: new MemberList(await trust.members()),
    clock: createNodeClock(),
    log: refused => say({ refused }),
  })
  const rig = await NbdRig.start()
  const nbd = await rig.server.listenTls('127.0.0.1', 0, transport)
  const rpc = new RpcServer({ log: () => undefined })
  say({ nbd: nbd.port, rpc: await rpc.listenTls('127.0.0.1', 0, transport) })
  setInterval(() => say({ residentMib: Math.round(process.memoryUsage.rss() / 2 ** 20) }), 250)
  await once(process.stdin.resume(), 'end')
  process.exit(0)
}

/** Opens connections that never get anywhere and keeps opening them until its stdin ends. */
async function flood(ports: readonly number[], count: number): Promise<void> {
  let opened = 0
  const open = (index: number): void => {
    const localAddress = `127.0.1.${1 + (index % 100)}`
    const socket = connectPlain({ host: '127.0.0.1', port: ports[index % ports.length]!, localAddress })
    socket.once('connect', () => {
      opened += 1
      if (index % 2 === 0) socket.write(Buffer.from('16030140000100', 'hex'))
    })
    socket.on('error', () => undefined)
    socket.resume()
  }
  for (let index = 0; index < count; index++) {
    open(index)
    if (index % 200 === 199) await new Promise(resolve => setTimeout(resolve, 20))
  }
  await new Promise(resolve => setTimeout(resolve, 1000))
  process.stdout.write(`${opened}\n`)
  await once(process.stdin.resume(), 'end')
  process.exit(0)
}

/** One member's writes, each read back and compared. */
class Load {
  readonly latenciesMs: number[] = []
  mismatches = 0
  errors = 0
  readonly #device: NbdClient
  #over = false
  #done: Promise<unknown> = Promise.resolve()

  constructor(device: NbdClient) {
    this.#device = device
  }

  start(): void {
    this.#done = Promise.all(Array.from({ length: DEPTH }, async (_, worker) => this.#work(worker)))
  }

  async stop(): Promise<void> {
    this.#over = true
    await this.#done
    await this.#device.close()
  }

  async #work(worker: number): Promise<void> {
    for (let round = 0; !this.#over; round++) {
      const offset = byteOffset(((round * DEPTH + worker) % LOAD_BLOCKS) * BLOCK)
      const data = Buffer.alloc(BLOCK, `${worker} ${round} `)
      const startedAt = performance.now()
      try {
        await this.#device.write({ offset, data, durable: true })
        const read = Buffer.alloc(BLOCK)
        await this.#device.read(offset, read)
        if (!read.equals(data)) this.mismatches += 1
      } catch {
        this.errors += 1
        return
      }
      this.latenciesMs.push(performance.now() - startedAt)
    }
  }
}

const quantile = (values: readonly number[], share: number): string =>
  ([...values].sort((a, b) => a - b)[Math.floor((values.length - 1) * share)] ?? NaN).toFixed(1)

function start(...words: string[]): ChildProcess {
  const own = fileURLToPath(import.meta.url)
  return spawn(process.execPath, ['--import', 'tsx', own, ...words], { stdio: ['pipe', 'pipe', 'inherit'] })
}

/** Tries to be let in over TLS at once, as JSON-RPC is called. @returns whether anything was answered */
async function tryRpc(port: number, { keyPem, certificatePem }: Partial<HostCredentials>): Promise<boolean> {
  const own = keyPem === undefined ? {} : { key: keyPem, cert: certificatePem! }
  const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false, ...own })
  return answered(socket, '{"jsonrpc":"2.0","id":1,"method":"host.ping","params":{}}\n')
}

async function answered(socket: ReturnType<typeof connectPlain>, bytes: string | Buffer): Promise<boolean> {
  let received = false
  socket.on('data', () => (received = true))
  socket.on('error', () => undefined)
  socket.write(bytes)
  await once(socket, 'close')
  return received
}

async function main(halfOpen: number): Promise<void> {
  const rig = await TrustRig.create()
  const directory = await mkdtemp(join(tmpdir(), 'xosan-attack-'))
  const [host, own, removed] = [await rig.credentials(), await rig.credentials(), await rig.credentials()]
  const expired = await rig.flawed({ notAfter: new Date(Date.now() - 86_400_000) })
  const trust = await TrustDirectory.open(join(directory, 'trust'))
  await trust.saveCredentials(host)
  await trust.saveMembers([rig.enlist(host), rig.enlist(own), rig.enlist(expired)])
  const refused: RefusalEvent[] = []
  let residentMib = 0
  const server = start('serve', trust.path)
  const ports = await new Promise<{ nbd: number; rpc: number }>(resolve => {
    createInterface({ input: server.stdout! }).on('line', text => {
      const line = JSON.parse(text) as ServerLine
      if ('nbd' in line) resolve(line)
      else if ('refused' in line) refused.push(line.refused)
      else residentMib = Math.max(residentMib, line.residentMib)
    })
  })
  const member = async (): Promise<NbdClient> => {
    const dialer = rig.transport(own).to(host.identity.host)
    const address = { host: '127.0.0.1', port: ports.nbd }
    return NbdClient.connect({ ...CLIENT_OPTIONS, address, dialer }, millis(30_000))
  }
  const load = new Load(await member())
  load.start()
  await new Promise(resolve => setTimeout(resolve, 2000))
  const calm = load.latenciesMs.splice(0)
  const residentBefore = residentMib

  const attempts: readonly (readonly [string, Partial<HostCredentials>])[] = [
    ['no certificate', {}],
    ['certificate of another SR', await (await TrustRig.create()).credentials()],
    ['certificate of a removed host', removed],
    ['expired certificate', expired],
  ]
  const gotIn: string[] = []
  for (const [name, credentials] of attempts) {
    if (await tryRpc(ports.rpc, credentials)) gotIn.push(`${name}, RPC`)
    const dialer = rig.transport({ ...host, ...credentials }).to(host.identity.host)
    const address = { host: '127.0.0.1', port: ports.nbd }
    if ('keyPem' in credentials) {
      const client = NbdClient.connect({ ...CLIENT_OPTIONS, address, dialer }, millis(10_000))
      await client.then(
        () => gotIn.push(`${name}, NBD`),
        () => undefined
      )
    }
  }
  if (await answered(connectPlain(ports.rpc, '127.0.0.1'), Buffer.alloc(4096, 'garbage'))) {
    gotIn.push('garbage, RPC (an alert is no answer)')
  }
  await answered(connectPlain(ports.nbd, '127.0.0.1'), Buffer.alloc(4096, 'garbage'))
  const causes = [...new Set(refused.map(({ cause }) => cause))]
  load.latenciesMs.length = 0

  const attacker = start('flood', `${ports.nbd},${ports.rpc}`, String(halfOpen))
  const [opened] = (await once(createInterface({ input: attacker.stdout! }), 'line')) as [string]
  const newcomer = await member()
  await newcomer.close()
  const stormy = [...load.latenciesMs]
  await load.stop()
  attacker.stdin!.end()
  server.stdin!.end()
  await Promise.all([once(attacker, 'close'), once(server, 'close')])
  rig.close()
  await rm(directory, { recursive: true })

  const rows = [
    ['got in', gotIn.join('; ') || 'nobody'],
    ['refused for', causes.join(', ')],
    ['half-open connections', opened],
    ['lines in the log', String(refused.length)],
    ['requests answered before, during', `${calm.length}, ${stormy.length}`],
    ['median ms before, during', `${quantile(calm, 0.5)}, ${quantile(stormy, 0.5)}`],
    ['longest ms before, during', `${quantile(calm, 1)}, ${quantile(stormy, 1)}`],
    ['memory of the server before, at most (MiB)', `${residentBefore}, ${residentMib}`],
    ['errors, mismatches', `${load.errors}, ${load.mismatches}`],
  ]
  for (const [name, value] of rows) console.log(`${name!.padEnd(44)} ${value}`)
  // A line for each of 100 addresses, two listeners and three causes at most, and those of single attempts.
  const flooded = refused.length > 2 * 100 * 3 + 50
  if (gotIn.length > 0 || load.errors > 0 || load.mismatches > 0 || flooded) process.exitCode = 1
}

const [role, first, second] = process.argv.slice(2)
if (role === 'serve') await serve(first!)
else if (role === 'flood') await flood(first!.split(',').map(Number), Number(second))
else await main(Number(role ?? 10_000))
