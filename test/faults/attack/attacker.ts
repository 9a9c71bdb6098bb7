/**
 * Who tries to get in: a process of its own in a network of its own. Takes orders on standard input, where keys may
 * be, and answers on standard output; both end together.
 *
 *     node --import tsx attacker.ts
 */
import { randomBytes } from 'node:crypto'
import { type Socket, connect as connectPlain } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { type TLSSocket, connect as connectTls } from 'node:tls'
import { Option, OptionReply, isErrorReply } from '../../../core/nbd-wire/constants.ts'
import { GREETING_BYTES, encodeClientFlags } from '../../../core/nbd-wire/greeting.ts'
import { encodeInfoRequest, encodeOption } from '../../../core/nbd-wire/option-request.ts'
import {
  type Attempt,
  type AttemptOutcome,
  type Flood,
  type FloodOutcome,
  type Linger,
  type LingerOutcome,
  type Order,
  type Report,
} from './attack-wire.ts'

/** Every gate ends a connection after 5 s; what still stands then is not going to be ended. */
const PATIENCE_MS = 9_000
const GARBAGE_BYTES = 4096
/** A wave of connections, and the pause after it: thousands at one moment would only overrun the queue of the listener. */
const WAVE = 250
const WAVE_PAUSE_MS = 100
const SLOW_BYTE_MS = 1_000
const LINGER_MS = 250
/** How long a flood goes on after its last connection: longer than every gate. */
const FLOOD_AFTERMATH_MS = 7_000
/** The beginning of a ClientHello, which promises 512 bytes. */
const HALF_HELLO = Buffer.from('16030102000100', 'hex')

const QUESTION = {
  rpc: Buffer.from('{"jsonrpc":"2.0","id":1,"method":"status","params":{}}\n'),
  nbd: Buffer.concat([
    encodeOption(Option.list, Buffer.alloc(0)),
    encodeOption(Option.go, encodeInfoRequest({ name: 'check', wanted: [] })),
  ]),
  etcd: Buffer.from('GET /version HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n'),
} as const

/** What was received, and the end of it. */
class Listening {
  #bytes = Buffer.alloc(0)
  #ended = false
  #wake: () => void = () => undefined

  constructor(socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk])
      this.#wake()
    })
    const end = (): void => {
      this.#ended = true
      this.#wake()
    }
    socket.on('error', end)
    socket.on('close', end)
  }

  get bytes(): Buffer {
    return this.#bytes
  }

  /** Waits for so many bytes or the end. @returns whether they came */
  async receive(count: number): Promise<boolean> {
    while (this.#bytes.length < count && !this.#ended) {
      await new Promise<void>(resolve => (this.#wake = resolve))
    }
    return this.#bytes.length >= count
  }
}

async function attempt(order: Attempt): Promise<AttemptOutcome> {
  const { address, port, from, way } = order
  const startedAt = performance.now()
  const socket = connectPlain({ host: address, port, localAddress: from })
  socket.on('error', () => undefined)
  const patience = setTimeout(() => socket.destroy(), PATIENCE_MS)
  const answer =
    way === 'tls' || way === 'tls-1.2' ? await askInTls(socket, order) : await askInClear(socket, order)
  clearTimeout(patience)
  socket.destroy()
  const elapsedMs = Math.round(performance.now() - startedAt)
  return { answer, closedAfterMs: elapsedMs >= PATIENCE_MS ? null : elapsedMs }
}

/** @returns what was answered that is more than a refusal */
async function askInClear(socket: Socket, { protocol, way }: Attempt): Promise<string | null> {
  const heard = new Listening(socket)
  if (protocol === 'nbd') {
    await heard.receive(GREETING_BYTES)
    if (way.startsWith('starttls')) {
      const hidden = way === 'starttls-injected' ? QUESTION.nbd : Buffer.alloc(0)
      socket.write(
        Buffer.concat([encodeClientFlags(1), encodeOption(Option.startTls, Buffer.alloc(0)), hidden])
      )
      await heard.receive(GREETING_BYTES + 20)
    }
  }
  const said = {
    silent: null,
    garbage: randomBytes(GARBAGE_BYTES),
    'json-rpc': QUESTION.rpc,
    nbd: Buffer.concat([encodeClientFlags(1), QUESTION.nbd]),
    http: QUESTION.etcd,
    'starttls-garbage': randomBytes(GARBAGE_BYTES),
    'starttls-injected': null,
    tls: null,
    'tls-1.2': null,
  }[way]
  if (said !== null) socket.write(said)
  await heard.receive(Infinity)
  return protocol === 'nbd' ? answeredByNbd(heard.bytes) : answeredInClear(heard.bytes)
}

/** An alert of TLS, or the sentence that Go has for those who speak HTTP to TLS, is a refusal. */
function answeredInClear(bytes: Buffer): string | null {
  const text = bytes.toString('latin1')
  const refusal = bytes.length === 0 || bytes[0] === 0x15 || text.startsWith('HTTP/1.0 400 ')
  return refusal ? null : text.slice(0, 60)
}

/** A greeting, errors, and the word that TLS may begin are no answers. */
function answeredByNbd(bytes: Buffer): string | null {
  let at = GREETING_BYTES
  while (at + 20 <= bytes.length) {
    const [option, type, length] = [8, 12, 16].map(offset => bytes.readUInt32BE(at + offset))
    const mayBegin = option === Option.startTls && type === OptionReply.ack
    // An alert of TLS after that.
    if (bytes[at] === 0x15) return null
    if (!mayBegin && !isErrorReply(type!)) return `option ${option!} was answered with ${type!}`
    at += 20 + length!
  }
  return bytes.length > at && bytes[at] !== 0x15 ? bytes.subarray(at, at + 30).toString('hex') : null
}

async function askInTls(socket: Socket, { protocol, way, credentials }: Attempt): Promise<string | null> {
  if (protocol === 'nbd' && !(await startTls(socket))) return null
  const version = way === 'tls-1.2' ? 'TLSv1.2' : 'TLSv1.3'
  const secure: TLSSocket = connectTls({
    socket,
    rejectUnauthorized: false,
    minVersion: version,
    maxVersion: version,
    ...(credentials === null ? {} : { key: credentials.keyPem, cert: credentials.certificatePem }),
  })
  const heard = new Listening(secure)
  secure.once('secureConnect', () => secure.write(QUESTION[protocol]))
  await heard.receive(1)
  return heard.bytes.length === 0 ? null : heard.bytes.toString('latin1').slice(0, 60)
}

/** @returns whether the server lets TLS begin */
async function startTls(socket: Socket): Promise<boolean> {
  const heard = new Listening(socket)
  if (!(await heard.receive(GREETING_BYTES))) return false
  socket.write(Buffer.concat([encodeClientFlags(1), encodeOption(Option.startTls, Buffer.alloc(0))]))
  const allowed = await heard.receive(GREETING_BYTES + 20)
  socket.removeAllListeners('data')
  return allowed
}

async function linger({ address, port, protocol, credentials }: Linger): Promise<LingerOutcome> {
  const socket = connectPlain({ host: address, port })
  socket.on('error', () => undefined)
  if (protocol === 'nbd' && !(await startTls(socket))) return { lastAnsweredAt: null }
  const { keyPem, certificatePem } = credentials
  const secure = connectTls({ socket, rejectUnauthorized: false, key: keyPem, cert: certificatePem })
  let lastAnsweredAt: number | null = null
  secure.on('data', () => (lastAnsweredAt = Date.now()))
  secure.on('error', () => undefined)
  const question = {
    rpc: QUESTION.rpc,
    nbd: encodeOption(Option.list, Buffer.alloc(0)),
    etcd: 'GET /version HTTP/1.1\r\nHost: etcd\r\n\r\n',
  }[protocol]
  const timer = setInterval(() => secure.write(question), LINGER_MS)
  await new Promise<void>(resolve => secure.once('close', () => resolve()))
  clearInterval(timer)
  return { lastAnsweredAt }
}

const flooding = new Set<Socket>()

/** One in four says nothing, one half of a ClientHello, one byte after byte, one what NBD would begin with. */
async function flood({ targets, from, connections }: Flood): Promise<FloodOutcome> {
  const outcome = { opened: 0, closed: 0, failed: 0 }
  const slow: Socket[] = []
  const timer = setInterval(() => {
    for (const socket of slow) if (socket.writable) socket.write(HALF_HELLO.subarray(0, 1))
  }, SLOW_BYTE_MS)
  for (let index = 0; index < connections; index++) {
    const { address, port } = targets[index % targets.length]!
    const localAddress = from[Math.floor(index / targets.length) % from.length]!
    const socket = connectPlain({ host: address, port, localAddress })
    flooding.add(socket)
    let open = false
    socket.once('connect', () => {
      open = true
      outcome.opened += 1
      const manner = Math.floor(index / targets.length / from.length) % 4
      if (manner === 1) socket.write(HALF_HELLO)
      else if (manner === 2) slow.push(socket)
      else if (manner === 3) {
        socket.write(Buffer.concat([encodeClientFlags(1), encodeOption(Option.startTls, Buffer.alloc(0))]))
      }
    })
    socket.on('error', () => undefined)
    socket.once('close', () => {
      if (!flooding.delete(socket)) return
      if (open) outcome.closed += 1
      else outcome.failed += 1
    })
    socket.resume()
    if (index % WAVE === WAVE - 1) await delay(WAVE_PAUSE_MS)
  }
  await delay(FLOOD_AFTERMATH_MS)
  clearInterval(timer)
  return outcome
}

async function obey(order: Order): Promise<void> {
  const say = (report: Report): void => void process.stdout.write(`${JSON.stringify(report)}\n`)
  if (order.kind === 'attempt') say({ id: order.id, attempt: await attempt(order) })
  else if (order.kind === 'flood') say({ id: order.id, flood: await flood(order) })
  else if (order.kind === 'linger') say({ id: order.id, linger: await linger(order) })
  else {
    for (const socket of [...flooding]) {
      flooding.delete(socket)
      socket.destroy()
    }
  }
}

createInterface({ input: process.stdin })
  .on('line', line => void obey(JSON.parse(line) as Order))
  .once('close', () => process.exit(0))
