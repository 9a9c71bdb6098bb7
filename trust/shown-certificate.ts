import { type X509Certificate } from 'node:crypto'
import { type TLSSocket } from 'node:tls'
import { certificateFacts } from './certificate.ts'
import { identityUri } from './identity.ts'

/** Why a connection is not let in; `detail` in words, for the log. */
export interface RefusedConnection {
  readonly refused: string
  readonly detail: string
}

/**
 * What the other end of a server's connection has shown, if TLS itself finds nothing wrong with it: it chains to the
 * authority, is in its time, and was shown in this handshake.
 */
export function shownCertificate(
  socket: TLSSocket
): { readonly certificate: X509Certificate } | RefusedConnection {
  const certificate = socket.getPeerX509Certificate()
  if (certificate === undefined) return { refused: 'no-certificate', detail: 'it showed no certificate' }
  if (socket.isSessionReused()) return { refused: 'resumed', detail: 'it resumed an earlier session' }
  if (!socket.authorized) return refusalByTls(String(socket.authorizationError), certificate.raw)
  return { certificate }
}

const TLS_CAUSES: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'expired',
  CERT_NOT_YET_VALID: 'not-yet-valid',
}

/** @param code of OpenSSL; @param certificate of which nothing is proven: what it says helps to find whose it is */
function refusalByTls(code: string, certificate: Uint8Array): RefusedConnection {
  const identity = certificateFacts(certificate)?.identity
  const claim = identity == null ? 'names no host' : `says it is ${identityUri(identity)}`
  return { refused: TLS_CAUSES[code] ?? 'other-authority', detail: `${code}; the certificate ${claim}` }
}
