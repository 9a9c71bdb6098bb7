import { chmod, rm } from 'node:fs/promises'
import { connect, isIP, isIPv4, type Server } from 'node:net'
import { XosanError } from '../core/errors.ts'

/** Longest path of a unix socket on Linux in bytes: `sun_path` has 108, the last one a NUL (unix(7)). */
const UNIX_PATH_BYTES_MAX = 107

/**
 * Listens on a unix socket that only this user can ever connect to.
 *
 * The process's umask is narrowed just around the bind, which Node makes before `listen` returns: a socket made with
 * the usual umask and narrowed afterwards would be open to anybody for a moment. A socket file that nobody listens on
 * is replaced.
 *
 * @throws XosanError INVALID_ARGUMENT when the path is too long or somebody listens there
 */
export async function listenOnPrivateSocket(server: Server, path: string): Promise<void> {
  if (Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: `The socket path ${path}`,
      reason: `it is longer than ${UNIX_PATH_BYTES_MAX} bytes`,
    })
  }
  if (await isListenedOn(path)) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: `The socket path ${path}`,
      reason: 'another process listens there',
    })
  }
  await rm(path, { force: true })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    const usual = process.umask(0o077)
    try {
      server.listen(path, () => {
        server.off('error', reject)
        resolve()
      })
    } finally {
      process.umask(usual)
    }
  })
  await chmod(path, 0o600)
}

/**
 * Listens on a TCP port of a loopback address.
 *
 * @param port 0 takes any free one
 * @returns the port
 * @throws XosanError UNSUPPORTED for any other address: beyond this machine everything is TLS
 */
export async function listenOnLoopback(server: Server, host: string, port: number): Promise<number> {
  requireLoopback(host)
  return listenOnAddress(server, host, port)
}

/**
 * Listens on a TCP port, on any address: for servers that let in only whom TLS has authenticated.
 *
 * @param port 0 takes any free one
 * @returns the port
 */
export async function listenOnAddress(server: Server, host: string, port: number): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host, port }, () => {
      server.off('error', reject)
      resolve()
    })
  })
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : port
}

/** @throws XosanError UNSUPPORTED unless the address is one of 127.0.0.0/8 or ::1 */
function requireLoopback(host: string): void {
  const loopback = isIP(host) !== 0 && (isIPv4(host) ? host.startsWith('127.') : host === '::1')
  if (!loopback) {
    throw new XosanError('UNSUPPORTED', {
      what: `Listening on ${host}`,
      reason: 'without TLS only loopback addresses (127.0.0.0/8, ::1) are taken',
    })
  }
}

async function isListenedOn(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const probe = connect(path)
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', () => resolve(false))
  })
}
