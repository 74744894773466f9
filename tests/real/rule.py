"""Which models each person may see: written from docs/src/models.md alone, over LiteLLM's rows only."""

import re

from world import EXTRA, SERVED, email_of


class Rule:
    def __init__(self, db):
        def rows(table):
            return db.rows(f'select * from "LiteLLM_{table}"')

        def by(key, table):
            return {r[key]: r for r in rows(table)}

        self.now = db.rows("select now() at time zone 'UTC' as t")[0]['t']
        self.users, self.teams, self.orgs = (
            by('user_id', 'UserTable'),
            by('team_id', 'TeamTable'),
            by('organization_id', 'OrganizationTable'),
        )
        self.keys, self.projects, self.aliases = (
            rows('VerificationToken'),
            by('project_id', 'ProjectTable'),
            by('id', 'ModelTable'),
        )
        self.groups, self.budgets = by('access_group_id', 'AccessGroupTable'), by('budget_id', 'BudgetTable')
        self.org_members, self.team_members = rows('OrganizationMembership'), rows('TeamMembership')
        self.served = [(EXTRA, None, [])]  # name, team whose own it is, tags
        for r in rows('ProxyModelTable'):
            info = r['model_info'] or {}
            if not r['blocked']:
                self.served.append(
                    (info.get('team_public_model_name') or r['model_name'], info.get('team_id'), info.get('access_groups') or [])
                )

    def allows(self, names, model, team=None):
        """One list at one level; `team` is the team of the path, whose own models and their tags count."""
        if not names or '*' in names or 'all-proxy-models' in names:
            return True
        tags = {t for name, owner, tags in self.served if name == model and owner in (None, team) for t in tags}
        return any(n == model or n in tags or '*' in n and re.fullmatch(n.replace('*', '.*'), model) for n in names)

    def group_models(self, ids):
        return [m for i in ids or [] if i in self.groups for m in self.groups[i]['access_model_names']]

    def key_of(self, user):
        """The keys of somebody: no sessions of LiteLLM's own pages."""
        return [k for k in self.keys if k['user_id'] == user['user_id'] and k['team_id'] != 'litellm-dashboard']

    def chats(self, key):
        chat = {'llm_api_routes', '/chat/completions', '/v1/*'}
        return key['key_type'] not in ('management', 'read_only') and (not key['allowed_routes'] or chat & set(key['allowed_routes']))

    def alive(self, key):
        return not key['blocked'] and (key['expires'] is None or key['expires'] >= self.now)

    def usable(self, key):
        return self.alive(key) and self.chats(key) and not (self.projects.get(key['project_id']) or {}).get('blocked')

    def key_allows(self, key, model, team_aliases, team):
        project = self.projects.get(key['project_id']) or {}
        target = key['aliases'].get(model, model)
        return self.allows(project.get('models'), model, team) and (
            'all-team-models' in (key['models'] or [])
            or model in team_aliases
            or self.allows(key['models'], target, team)
            or any(self.allows([g], target, team) for g in self.group_models(key['access_group_ids']))
        )

    def teams_of(self, user):
        return [
            t
            for t in self.teams.values()
            if any(
                e.get('user_id') == user['user_id']
                or not e.get('user_id')
                and (e.get('user_email') or '').strip().lower() == email_of(user)
                for e in t['members_with_roles'] or []
            )
        ]

    def team_path(self, user, team, model):
        if team['blocked'] or not any(n == model and owner in (None, team['team_id']) for n, owner, _ in self.served):
            return False
        tid = team['team_id']
        if 'no-default-models' not in (user['models'] or []) and not self.allows(user['models'], model, tid):
            return False
        if team['organization_id'] and not self.allows(self.orgs[team['organization_id']]['models'], model, tid):
            return False
        for m in self.team_members:
            if (m['user_id'], m['team_id']) == (user['user_id'], tid) and m['budget_id']:
                if not self.allows(self.budgets[m['budget_id']]['allowed_models'], model, tid):
                    return False
        names = team['models'] or []
        level = (
            'all-team-models' in names
            or self.allows(names, model, tid)
            or any(self.allows([g], model, tid) for g in self.group_models(team['access_group_ids']))
        )
        keys = [k for k in self.key_of(user) if k['team_id'] == tid]
        if not keys:
            return level
        aliases = (self.aliases.get(team['model_id']) or {}).get('aliases') or {}
        for k in filter(self.usable, keys):
            # An access group that names the key or its team goes beyond the team.
            beyond = [
                i
                for i in k['access_group_ids'] or []
                if i in self.groups
                and (tid in self.groups[i]['assigned_team_ids'] or k['token'] in self.groups[i]['assigned_key_ids'])
            ]
            if self.key_allows(k, model, aliases, tid) and (
                level or any(self.allows([g], model, tid) for g in self.group_models(beyond))
            ):
                return True
        return False

    def personal_path(self, user, model):
        keys = [k for k in self.key_of(user) if not k['team_id']]
        if (self.teams_of(user) or self.key_of(user)) and not any(map(self.usable, keys)):
            return False
        if 'no-default-models' in (user['models'] or []) or not any(n == model and owner is None for n, owner, _ in self.served):
            return False
        orgs = {m['organization_id'] for m in self.org_members if m['user_id'] == user['user_id']} | {user['organization_id']} - {
            None
        }
        return (
            self.allows(user['models'], model)
            and (not orgs or any(self.allows(self.orgs[o]['models'], model) for o in orgs))
            and (not keys or any(self.usable(k) and self.key_allows(k, model, {}, None) for k in keys))
        )

    def may(self, user, model):
        # Besides the teams they are in, those they only have a key for.
        by_key = {k['team_id'] for k in self.key_of(user)}
        teams = self.teams_of(user)
        teams += [t for t in self.teams.values() if t['team_id'] in by_key and t not in teams]
        return any(self.team_path(user, t, model) for t in teams) or self.personal_path(user, model)

    def people(self, withdrawn):
        """Who has an account, and the models each of them sees. An administrator sees all but what LiteLLM served once."""
        return {
            u['user_id']: (set(SERVED) - withdrawn if u['user_role'] == 'proxy_admin' else {m for m in SERVED if self.may(u, m)})
            for u in self.users.values()
            if '@' in email_of(u) and u['metadata'].get('scim_active') is not False
        }

    def about(self, user):
        """The rows behind somebody's models, to look at when they are wrong."""
        rows = [user, *self.teams_of(user), *(k for k in self.keys if k['user_id'] == user['user_id'])]
        return [
            {
                c: str(v)
                for c, v in r.items()
                if c.endswith('_id')
                or c in ('models', 'aliases', 'blocked', 'expires', 'key_type', 'allowed_routes', 'access_group_ids', 'token')
                if v
            }
            for r in rows
        ]

    def with_key(self, people):
        return {
            k['user_id']
            for k in self.keys
            if k['user_id'] in people
            and k['team_id'] != 'litellm-dashboard'
            and self.alive(k)
            and not k['metadata'].get('service_account_id')
        }
