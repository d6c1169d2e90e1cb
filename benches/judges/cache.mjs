// The HTTP cache suite (github.com/http-tests/cache-tests) against the edge.
//
//   node cache.mjs SUITE EDGE [IDS]
//
// SUITE is a clone with its dependencies installed, EDGE the binary, IDS a file with the tests to run, one a line;
// without it, all that apply to a reverse proxy. The suite's origin runs in this process, on loopback; the edge is
// started in front of it with cache.yaml. Prints every test that did not pass, and the summary as the last line.
//
// CACHE_TEST=id runs that one test and prints every message of it. Verdicts are the suite's own; a test that depends on
// one that was not run is judged by itself.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const [suiteDir, edgeBinary, idsFile] = process.argv.slice(2)
if (!suiteDir || !edgeBinary) {
  console.error('usage: cache.mjs SUITE EDGE [IDS]')
  process.exit(2)
}
const of = file => import(pathToFileURL(path.resolve(suiteDir, file)).href)
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'judge-cache-'))
const origin = await startOrigin()
const edge = await startEdge(origin.address().port)
try {
  const { runTests, getResults } = await of('test-engine/client/runner.mjs')
  const suites = (await of('tests/index.mjs')).default
  const chosen = choose(suites)
  await runTests(chosen, false, edge.base)
  if (!process.env.CACHE_TEST) report(chosen, getResults(), await of('test-engine/lib/results.mjs'))
} finally {
  edge.process.kill()
  fs.rmSync(scratch, { recursive: true })
}
process.exit(0)

// The suite's origin listens on all addresses when told a port; here on loopback, on a free one.
async function startOrigin () {
  let server
  const listen = net.Server.prototype.listen
  net.Server.prototype.listen = function () {
    server = this
    return listen.call(this, { host: '127.0.0.1', port: 0 })
  }
  Object.assign(process.env, {
    npm_config_protocol: 'http', npm_config_port: '0', npm_config_pidfile: path.join(scratch, 'pid')
  })
  const { log } = console
  console.log = () => {}
  await of('test-engine/server/server.mjs')
  console.log = process.env.CACHE_TEST ? log : console.error
  console.report = log
  net.Server.prototype.listen = listen
  return server
}

async function startEdge (originPort) {
  const port = await freePort()
  const config = fileURLToPath(new URL('cache.yaml', import.meta.url))
  const log = fs.openSync(path.join(scratch, 'edge.log'), 'w')
  const child = spawn(edgeBinary, ['run', config], {
    env: { ...process.env, EDGE_PORT: String(port), ORIGIN_PORT: String(originPort) }, stdio: ['ignore', log, log]
  })
  for (let tries = 0; tries < 100; tries++) {
    if (child.exitCode !== null) break
    const socket = net.connect(port, '127.0.0.1')
    const up = await once(socket, 'connect').then(() => true, () => false)
    socket.destroy()
    if (up) return { process: child, base: `http://127.0.0.1:${port}` }
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  console.error(fs.readFileSync(path.join(scratch, 'edge.log'), 'utf8'))
  throw new Error('the edge did not start')
}

async function freePort () {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

// The suites with the tests to run.
function choose (suites) {
  const one = process.env.CACHE_TEST
  const ids = one ? [one] : idsFile && fs.readFileSync(idsFile, 'utf8').split(/\s+/).filter(Boolean)
  const wanted = ids && new Set(ids)
  return suites.map(suite => ({
    ...suite,
    tests: suite.tests.filter(test => !test.browser_only && (!wanted || wanted.has(test.id))).map(test => ({
      ...test, dump: Boolean(one), depends_on: test.depends_on?.filter(id => !wanted || wanted.has(id))
    }))
  }))
}

function report (suites, results, { determineTestResult, resultTypes }) {
  const good = [resultTypes.pass, resultTypes.yes]
  const counts = { required: [0, 0], optimal: [0, 0], check: [0, 0] }
  for (const suite of suites) {
    for (const test of suite.tests) {
      const kind = test.kind ?? 'required'
      const verdict = determineTestResult(suites, test.id, results)
      const passed = good.includes(verdict)
      counts[kind][0] += passed
      counts[kind][1] += 1
      if (passed) continue
      const word = Object.keys(resultTypes).find(key => resultTypes[key] === verdict)
      const detail = Array.isArray(results[test.id]) ? results[test.id].join(': ') : ''
      console.report([kind, suite.id, test.id, word, test.name.replace(/\s+/g, ' '), detail].join('\t'))
    }
  }
  const [required, optimal, check] = Object.values(counts).map(([passed, all]) => `${passed}/${all}`)
  console.report(`required ${required}, optimal ${optimal}, check yes ${check}`)
}
