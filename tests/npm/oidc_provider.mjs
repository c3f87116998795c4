// A certified OpenID provider with the people that the first argument (JSON) names, on a free port of loopback.
// {"client": id, "secret": text, "redirect_uris": [...], "people": {name: {"claims": {...}, "amr": [...], "acr": text}}}
import { createServer } from 'node:http'
import Provider from 'oidc-provider'

const { client, secret, redirect_uris, people } = JSON.parse(process.argv[2])
const escape = (text) => text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`)

const server = createServer()
await new Promise((done) => server.listen(0, '127.0.0.1', done))
const issuer = `http://127.0.0.1:${server.address().port}`

const provider = new Provider(issuer, {
  clients: [{ client_id: client, client_secret: secret, redirect_uris, grant_types: ['authorization_code'], response_types: ['code'] }],
  pkce: { required: () => true },
  claims: { openid: ['sub', 'groups', 'amr', 'acr'], email: ['email', 'email_verified'], profile: ['name'] },
  acrValues: ['gold'],
  conformIdTokenClaims: false,
  cookies: { keys: ['a key of a test'] },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_, id) => people[id] && { accountId: id, claims: () => ({ sub: `subject-of-${id}`, ...people[id].claims }) },
  // Everybody has consented before: what is tested stands on the other side.
  async loadExistingGrant(ctx) {
    const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId })
    grant.addOIDCScope('openid email profile')
    await grant.save()
    return grant
  },
})

async function form(request) {
  let body = ''
  for await (const piece of request) body += piece
  return new URLSearchParams(body)
}

async function interaction(request, response) {
  const details = await provider.interactionDetails(request, response)
  if (request.method === 'POST') {
    const said = await form(request)
    const name = said.get('login')
    if (said.get('action') === 'cancel') {
      return provider.interactionFinished(request, response, { error: 'access_denied', error_description: '<b>no</b>' })
    }
    if (people[name]) {
      const { amr, acr } = people[name]
      return provider.interactionFinished(request, response, { login: { accountId: name, amr, acr } })
    }
  }
  const hint = escape(details.params.login_hint ?? '')
  response.setHeader('content-type', 'text/html; charset=utf-8')
  response.end(`<!doctype html><html lang="en"><title>Company sign-in</title><h1>Company sign-in</h1>
<form method="post"><label>Login <input name="login" value="${hint}"></label>
<button name="action" value="login">Log in</button><button name="action" value="cancel">Cancel</button></form></html>`)
}

const answer = provider.callback()
server.on('request', (request, response) => {
  if (!request.url.startsWith('/interaction/')) return answer(request, response)
  interaction(request, response).catch((error) => {
    response.statusCode = 500
    response.end(String(error))
  })
})
// Whoever started this closes its input at the end: a signal reaches the interpreter's wrapper alone.
process.stdin.resume().on('end', () => process.exit(0))
console.log(`listening on ${issuer}`)
