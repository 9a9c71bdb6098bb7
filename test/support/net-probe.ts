/**
 * Sends and receives in the network of a lab host, on behalf of a test: `node net-probe.js ADDRESS`. One JSON object per
 * line on standard input is a command, one on standard output is something that happened.
 */
import { createSocket } from 'node:dgram'
import { type Socket, connect, createServer } from 'node:net'
import { createInterface } from 'node:readline'

/** What a test may ask for. */
export type ProbeCommand =
  /** A datagram, which needs nothing to come back. */
  | { readonly do: 'send'; readonly to: string; readonly text: string }
  /** Text on the one connection with that address, whichever side opened it; it is opened when there is none. */
  | { readonly do: 'write'; readonly to: string; readonly text: string }
  /** As many bytes as pass in this time; the other side says how fast they came. */
  | { readonly do: 'flood'; readonly to: string; readonly ms: number }

/** What a probe says. */
export type ProbeEvent =
  | { readonly kind: 'ready' }
  | { readonly kind: 'datagram' | 'text'; readonly from: string; readonly text: string }
  | { readonly kind: 'failed'; readonly from: string; readonly text: string }
  | { readonly kind: 'rate'; readonly bitsPerSecond: number }

const PORT = 9000
const SINK_PORT = 9001
/** The beginning of a flood does not count: the bucket of a shaped link passes at full speed. */
const WARM_UP_MS = 250
const FLOOD_BYTES = 256 * 1024

const own = process.argv[2] ?? ''
const connections = new Map<string, Socket>()

function say(event: ProbeEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}

function take(socket: Socket, peer: string): Socket {
  connections.set(peer, socket)
  socket.setNoDelay(true)
  socket.on('data', data => say({ kind: 'text', from: peer, text: data.toString() }))
  socket.on('error', error => say({ kind: 'failed', from: peer, text: error.message }))
  return socket
}

function measure(socket: Socket): void {
  let firstAt: number | null = null
  let counted = 0
  let countedSince = 0
  let lastAt = 0
  socket.on('data', data => {
    lastAt = performance.now()
    firstAt ??= lastAt
    if (lastAt - firstAt < WARM_UP_MS) countedSince = lastAt
    else counted += data.length
  })
  socket.on('error', () => undefined)
  socket.on('close', () => say({ kind: 'rate', bitsPerSecond: (counted * 8000) / (lastAt - countedSince) }))
}

function flood(to: string, ms: number): void {
  const socket = connect({ host: to, port: SINK_PORT, localAddress: own })
  const end = performance.now() + ms
  const data = Buffer.alloc(FLOOD_BYTES)
  const more = (): void => {
    if (performance.now() >= end) socket.destroy()
    else socket.write(data, more)
  }
  socket.on('connect', more)
  socket.on('error', error => say({ kind: 'failed', from: to, text: error.message }))
}

const datagrams = createSocket('udp4')
datagrams.on('message', (data, { address }) =>
  say({ kind: 'datagram', from: address, text: data.toString() })
)

createInterface({ input: process.stdin })
  .on('line', line => {
    const command = JSON.parse(line) as ProbeCommand
    if (command.do === 'send') {
      datagrams.send(command.text, PORT, command.to)
    } else if (command.do === 'write') {
      const { to } = command
      const socket = connections.get(to) ?? take(connect({ host: to, port: PORT, localAddress: own }), to)
      socket.write(command.text)
    } else {
      flood(command.to, command.ms)
    }
  })
  // The test has gone, in whatever way.
  .on('close', () => process.exit(0))

createServer(measure).listen(SINK_PORT, own, () => {
  createServer(socket => take(socket, socket.remoteAddress ?? '')).listen(PORT, own, () => {
    datagrams.bind(PORT, own, () => say({ kind: 'ready' }))
  })
})
