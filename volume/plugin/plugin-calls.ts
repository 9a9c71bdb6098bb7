import { type Json } from '../../rpc/wire.ts'
import { defineCall, type SmapiCall } from '../call.ts'
import { catchUp } from '../context.ts'

/**
 * What xapi is told of the volume plugin. Only features that are true are named; xapi derives the others from the
 * scripts that it finds (SR_CREATE from SR.create, and so on).
 */
export const volumePluginQuery = (version: string): Json => ({
  plugin: 'xosan',
  name: 'XOSAN',
  description: 'The local disks of all hosts as one shared, thin, replicated Storage Repository',
  vendor: 'Vates',
  copyright: 'Apache-2.0',
  version,
  required_api_version: '5.0',
  features: ['VDI_ATTACH_OFFLINE', 'LARGE_VDI', 'THIN_PROVISIONING'],
  configuration: {
    path: 'directory of an existing file system on every host, in which the SR keeps its files',
    copies: 'replicas of each volume, each on another host (2 when left out)',
    headroom:
      'space of each host that new volumes leave free: a percentage like 10%, or bytes (10% when left out)',
  },
  required_cluster_stack: [],
  supported_image_formats: [],
})

/** What xapi is told of the datapath plugin. */
export const datapathPluginQuery = (version: string): Json => ({
  plugin: 'xosan',
  name: 'XOSAN datapath',
  description: 'Serves the volumes of XOSAN over NBD',
  vendor: 'Vates',
  copyright: 'Apache-2.0',
  version,
  required_api_version: '5.0',
  features: [],
  configuration: {},
  required_cluster_stack: [],
  supported_image_formats: [],
})

const diagnostics = defineCall(10_000, {}, async context => {
  const srs = context.metadata.srs().map(({ sr, name, hosts }) => {
    const volumes = context.metadata.volumes(sr).length
    return `SR ${sr} (${name}): ${hosts.length} hosts, ${volumes} volumes`
  })
  const lines = [
    `XOSAN ${context.version} on host ${context.host}`,
    `catalogue at revision ${context.metadata.reached}`,
    ...srs,
  ]
  return lines.join('\n')
})

const ls = defineCall(15_000, {}, async (context, _, deadline) => {
  await catchUp(context, deadline)
  return context.metadata
    .srs()
    .filter(({ operation }) => operation === undefined)
    .map(({ sr }) => sr)
})

export const volumePluginCalls: Readonly<Record<string, SmapiCall>> = {
  'Plugin.Query': defineCall(5000, {}, async context => volumePluginQuery(context.version)),
  'Plugin.diagnostics': diagnostics,
  'Plugin.ls': ls,
}

export const datapathPluginCalls: Readonly<Record<string, SmapiCall>> = {
  'Plugin.Query': defineCall(5000, {}, async context => datapathPluginQuery(context.version)),
}
